"""How an op is defined: its class body is its specification.

    class Slice(Op, name="slice", levels=(GRAPH,)):
        '''Every `step`-th element of `dim`, from `start`, `length` of them.'''

        x = operand()
        dim = attr(int)
        start, length, step = attr(Dim), attr(Dim), attr(int)

        @classmethod
        def infer(cls, operands, attrs, blocks): ...

Fields are descriptors: `op.x` reads the operand, `op.dim` the attribute, in the order
of their declaration. Registry, printer, parser, verifier, documentation and the
registry-wide tests all derive from the class.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class Operand:
    """One operand."""

    index: int

    def __get__(self, op: Any, owner: Any = None) -> Any:
        return self if op is None else op.operands[self.index]


class Operands:
    """All operands from here on; the last operand field of a class."""

    index: int

    def __get__(self, op: Any, owner: Any = None) -> Any:
        return self if op is None else op.operands[self.index :]


class Attr(Generic[T]):
    """A compile-time attribute. `kind` tells printer, parser and verifier its form."""

    def __init__(self, kind: Any, default: Any) -> None:
        self.kind = kind
        self.default = default
        self.index = -1

    @overload
    def __get__(self, op: None, owner: Any = None) -> Attr[T]: ...
    @overload
    def __get__(self, op: Any, owner: Any = None) -> T: ...
    def __get__(self, op: Any, owner: Any = None) -> Any:
        return self if op is None else op.attrs[self.index]


class BlockField:
    """A nested block."""

    index: int

    def __get__(self, op: Any, owner: Any = None) -> Any:
        return self if op is None else op.blocks[self.index]


REQUIRED: Any = object()


def operand() -> Any:
    """Declare one operand."""
    return Operand()


def operands() -> Any:
    """Declare that all further operands belong to this field."""
    return Operands()


def attr(kind: Any, default: Any = REQUIRED) -> Any:
    """Declare an attribute of a kind that the text form knows."""
    return Attr[Any](kind, default)


def block() -> Any:
    """Declare a nested block."""
    return BlockField()


REGISTRY: dict[str, Any] = {}
"""Every concrete op class by its name in the text form."""


class OpMeta(type):
    """Makes an op class lean (no instance dictionary) and numbers its fields."""

    name: str
    levels: tuple[Any, ...]
    pure: bool
    operand_fields: tuple[str, ...]
    variadic: bool
    attr_fields: dict[str, Attr[Any]]
    block_fields: tuple[str, ...]

    def __new__(
        mcs,
        cls_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        name: str = "",
        **facts: Any,
    ) -> OpMeta:
        fields = ("operands", "attrs", "blocks", "results", "loc")
        namespace["__slots__"] = () if bases else fields
        namespace["name"] = name
        namespace.update(facts)
        return super().__new__(mcs, cls_name, bases, namespace)

    def __init__(
        cls,
        cls_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        name: str = "",
        **facts: Any,
    ) -> None:
        super().__init__(cls_name, bases, namespace)
        declared = _declared(cls)
        cls.operand_fields = _number(declared, (Operand, Operands))
        cls.variadic = any(isinstance(f, Operands) for _, f in declared)
        attributes = _number(declared, (Attr,))
        cls.attr_fields = {n: f for n, f in declared if n in attributes}
        cls.block_fields = _number(declared, (BlockField,))
        if not name:
            return
        if name in REGISTRY:
            raise TypeError(f"two op classes are called {name!r}")
        REGISTRY[name] = cls


def _declared(cls: type) -> list[tuple[str, Any]]:
    """Fields from the oldest base to the class, each name once."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, (Operand, Operands, Attr, BlockField)):
                found[name] = value
    return list(found.items())


def _number(
    declared: list[tuple[str, Any]], kinds: tuple[type, ...]
) -> tuple[str, ...]:
    names: list[str] = []
    for name, field in declared:
        if isinstance(field, kinds):
            field.index = len(names)
            names.append(name)
    return tuple(names)
