"""Passes: one file each, one public function each, from valid IR to valid IR."""
