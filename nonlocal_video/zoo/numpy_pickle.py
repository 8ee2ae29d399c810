"""Reader of pickles of nested dicts, lists and NumPy arrays that never calls anything in the file.

`pickle.load` imports and calls anything that a file names. Here the opcodes (as parsed by `pickletools`) drive a small
interpreter that knows data and three recipes for arrays, and refuses everything else by name.
"""

from __future__ import annotations

import pickletools
from math import prod
from typing import Any

import numpy as np

from nonlocal_video.errors import ModelError

MAX_OPCODES = 1_000_000  # an opcode creates at most some 100 bytes beyond its own data, so this bounds memory
MAX_DIMENSIONS = 32
MAX_DIMENSION_SIZE = 2**31 - 1

_RECONSTRUCT, _FROMBUFFER, _NDARRAY, _DTYPE = "_reconstruct", "_frombuffer", "ndarray", "dtype"
_SCALAR, _ENCODE, _BYTES = "scalar", "encode", "bytes"
# NumPy 2 moved `core` to `_core`. Protocol 5 writes contiguous arrays with `_frombuffer`; protocol 2 of Python 3 writes
# bytes with `_codecs.encode`, and empty ones with `bytes`.
_GLOBALS: dict[tuple[str, str], str] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROMBUFFER,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("_codecs", "encode"): _ENCODE,
    ("__builtin__", "bytes"): _BYTES,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
}
_DTYPES = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"))
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    (
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINSTRING",  # of Python 2: pickletools returns it as text, with one character for each byte
        "SHORT_BINSTRING",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    )
)
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Global:
    """A name that the file may use; it is only compared, never imported."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe


class _DType:
    """An unfinished dtype: REDUCE gives its kind and size, BUILD its byte order."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.value: np.dtype[Any] | None = None


class _Array:
    """An unfinished array: REDUCE creates it, BUILD gives its shape, dtype and bytes. A scalar is complete at once."""

    def __init__(self, value: np.ndarray[Any, Any] | np.generic | None = None) -> None:
        self.value = value


_MARK = object()


def read_numpy_pickle(data: bytes) -> Any:
    """Read nested dicts, lists and tuples of arrays, numbers, strings and None from a pickle of protocol 2 to 5.

    Strings of Python 2 are decoded as latin-1. Arrays are read-only and in the file's byte order, from protocol 3 on
    without a copy of each. Refused are arrays of objects, strings, dates or records; dicts with keys other than strings
    and integers; containers that occur twice; and every global except NumPy's `_reconstruct`, `_frombuffer`, `scalar`,
    `ndarray` and `dtype`, `_codecs.encode` and an empty `bytes`.

    Args:
        data: The whole pickle.

    Returns:
        The object that the pickle describes.

    Raises:
        ModelError: If the file is damaged or contains anything else; the message names it and its position.
    """
    machine = _Machine(len(data))
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPCODES:
                raise ModelError(f"this pickle has more than {MAX_OPCODES:,} opcodes: it isn't a file of weights.")
            machine.step(opcode.name, argument, position or 0)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError, RecursionError) as error:
        raise ModelError(f"this pickle is damaged: {error}") from error
    return machine.result()


class _Machine:
    def __init__(self, num_bytes: int) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.to_encode = num_bytes
        """Bytes that text may still become. Without this limit one text could serve for any number of arrays."""

    def step(self, name: str, argument: Any, position: int) -> None:
        """Execute one opcode; the names are those of `pickletools`."""
        stack = self.stack
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "TUPLE":
            stack.append(tuple(_finished(self._pop_to_mark())))
        elif name in _SHORT_TUPLES:
            stack.append(tuple(_finished([self._pop() for _ in range(_SHORT_TUPLES[name])][::-1])))
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            value = self.memo[argument]
            if isinstance(value, (dict, list)):  # it could contain itself, or stand for exponentially many copies
                raise ModelError(f"this pickle uses one container twice (byte {position}), which weights do not need.")
            stack.append(value)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_to_mark() if name == "SETITEMS" else [self._pop(), self._pop()][::-1]
            self._update(_finished(items))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop_to_mark() if name == "APPENDS" else [self._pop()]
            target = self._top()
            if not isinstance(target, list):
                raise ValueError(f"{name} on something that is not a list (byte {position})")
            target.extend(_finished(items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "GLOBAL":
                module, _, attribute = argument.partition(" ")
            else:
                attribute, module = self._pop(), self._pop()
            self._push_global(module, attribute, position)
        elif name == "REDUCE":
            arguments, function = self._pop(), self._pop()
            stack.append(self._reduce(function, arguments))
        elif name == "BUILD":
            state = self._pop()
            self._build(self._top(), state)
        else:
            raise ModelError(
                f"this pickle uses the opcode {name} (byte {position}); weights do not need it, so it was not read."
            )

    def result(self) -> Any:
        """Return the object that is left at the end, if it consists of data only."""
        if len(self.stack) != 1:
            raise ModelError(f"this pickle is damaged: it ends with {len(self.stack)} objects instead of one.")
        try:
            root = _finished([self._pop()])[0]
        except ValueError as error:
            raise ModelError(f"this pickle is damaged: {error}") from error
        to_see, seen = [root], set()
        while to_see:  # each object once: shared tuples can stand for exponentially many
            value = to_see.pop()
            if isinstance(value, (_Global, _DType)):
                raise ModelError("this pickle holds a name as data; only arrays and plain values are read.")
            if isinstance(value, (dict, list, tuple)) and id(value) not in seen:
                seen.add(id(value))
                to_see.extend(value.values() if isinstance(value, dict) else value)
        return root

    def _push_global(self, module: object, attribute: object, position: int) -> None:
        recipe = None
        if isinstance(module, str) and isinstance(attribute, str):
            recipe = _GLOBALS.get((module, attribute))
        if recipe is None:
            raise ModelError(
                f"this pickle names {module}.{attribute} (byte {position}), which is not part of an array: not read. "
                f"Loading it with pickle would have run code."
            )
        self.stack.append(_Global(recipe))

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("an opcode finds nothing to work on")
        return self.stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self.stack.pop()
        return value

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            value = self.stack.pop()
            if value is _MARK:
                return items[::-1]
            items.append(value)
        raise ValueError("an opcode finds no mark")

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items are set on something that is not a dict, or a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise ModelError(f"this pickle has a dict key of type {type(key).__name__}; only str and int are read.")
            target[key] = value

    def _reduce(self, function: object, arguments: object) -> _Array | _DType | bytes | bytearray:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise ValueError("something is called that is not a function")
        if function.recipe == _RECONSTRUCT and len(arguments) == 3:
            kind = arguments[0]
            if isinstance(kind, _Global) and kind.recipe == _NDARRAY:
                return _Array()
        elif function.recipe == _FROMBUFFER and len(arguments) == 4:
            contents, dtype, shape, order = arguments
            return _Array(_array(self._bytes(contents), dtype, shape, fortran=order == "F"))
        elif function.recipe == _SCALAR and len(arguments) == 2:
            dtype, contents = arguments
            return _Array(_array(self._bytes(contents), dtype, (), fortran=False)[()])
        elif function.recipe == _ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
            return self._bytes(arguments[0])
        elif function.recipe == _BYTES and not arguments:
            return b""
        elif function.recipe == _DTYPE and arguments:
            code = arguments[0]
            if code not in _DTYPES:
                raise ModelError(f"this pickle has an array of dtype {code!r}; only {sorted(_DTYPES)} are read.")
            return _DType(code)
        raise ValueError(f"{function.recipe} is called with unexpected arguments")

    def _build(self, target: object, state: object) -> None:
        if not isinstance(state, tuple):
            raise ValueError("an object's state is not a tuple")
        if isinstance(target, _Array) and target.value is None and len(state) == 5:
            _, shape, dtype, fortran, contents = state
            target.value = _array(self._bytes(contents), dtype, shape, fortran=bool(fortran))
        elif isinstance(target, _DType) and target.value is None and len(state) >= 8:
            order, subdtype, names, fields = state[1:5]
            if order not in ("<", ">", "|", "=") or any(part is not None for part in (subdtype, names, fields)):
                raise ModelError("this pickle has an array of records; only plain numbers are read.")
            target.value = np.dtype(target.code).newbyteorder(order)
        else:
            raise ValueError("an object gets a state that does not fit it")

    def _bytes(self, contents: object) -> bytes | bytearray:
        """Return the bytes that a text stands for in protocol 2; bytes unchanged."""
        if isinstance(contents, str):
            self.to_encode -= len(contents)
            if self.to_encode < 0:
                raise ValueError("one text stands for several arrays")
            return contents.encode("latin-1")
        if not isinstance(contents, bytes | bytearray):
            raise ValueError("an array's contents are missing")
        return contents


def _finished(values: list[Any]) -> list[Any]:
    """Replace unfinished arrays by arrays; recipes may stay, since they are the arguments of REDUCE and BUILD."""
    finished = []
    for value in values:
        if isinstance(value, _Array):
            if value.value is None:
                raise ValueError("an array has no contents")
            value = value.value
        finished.append(value)
    return finished


def _array(contents: bytes | bytearray, dtype: object, shape: object, *, fortran: bool) -> np.ndarray[Any, Any]:
    if not isinstance(dtype, _DType) or dtype.value is None:
        raise ValueError("an array's dtype is missing")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"an array's shape is not a tuple of up to {MAX_DIMENSIONS} sizes")
    if not all(isinstance(size, int) and 0 <= size <= MAX_DIMENSION_SIZE for size in shape):
        raise ValueError("an array's shape has a size that no array has")
    num_bytes = prod(shape) * dtype.value.itemsize
    if num_bytes != len(contents):
        raise ValueError(f"an array of shape {shape} should have {num_bytes} bytes and has {len(contents)}")
    array = np.frombuffer(contents, dtype.value).reshape(shape, order="F" if fortran else "C")
    array.flags.writeable = False
    return array
