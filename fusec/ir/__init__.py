"""The intermediate representation: types, values, ops, and their meaning."""
