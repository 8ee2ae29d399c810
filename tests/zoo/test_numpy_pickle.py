"""The pickle reader gives what pickle.load gives for weights, and does nothing a file asks for otherwise."""

from __future__ import annotations

import os
import pickle
import struct
from typing import Literal

import numpy as np
import pytest

from nonlocal_video.errors import ModelError
from nonlocal_video.zoo import numpy_pickle
from nonlocal_video.zoo.numpy_pickle import read_numpy_pickle

PROTOCOLS = (2, 3, 4, 5)
DTYPES = ("?", "i1", "<i2", ">i4", "<i8", "u1", "<u4", "<f2", "<f4", ">f4", "<f8", "<c8", ">c16")


def assert_same(actual: object, expected: object) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert isinstance(actual, dict)
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, (list, tuple)):
        assert isinstance(actual, (list, tuple))
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert isinstance(actual, np.ndarray)
        # Below protocol 5, pickle.load swaps to the machine's byte order; the reader keeps the file's.
        assert actual.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        assert actual.shape == expected.shape
        np.testing.assert_array_equal(actual, expected)
    else:
        assert actual == expected


def array(dtype: str, shape: tuple[int, ...], order: Literal["C", "F"] = "C") -> np.ndarray:
    values = np.arange(np.prod(shape, dtype=int)) % 120
    return np.asarray(values.reshape(shape).astype(dtype), order=order)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_out_as_pickle_load_gives_them(protocol: int, order: str, dtype: str) -> None:
    data = pickle.dumps(array(dtype, (2, 3, 5), order), protocol=protocol)
    assert_same(read_numpy_pickle(data), pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nested_trees_come_out_as_pickle_load_gives_them(protocol: int) -> None:
    shared = array("<f4", (4,))
    every_other = array("<f8", (6, 6))[::2, 1::2]  # not contiguous: written in another way by protocol 5
    tree = {
        "params": {"a": {"kernel": array("<f4", (1, 3, 3, 2, 4)), "bias": shared}, 7: {}},
        "state": [shared, every_other, (1, -2, 2**40, 2.5, None, True, "ö", b"bytes"), [], ()],
        "scalar": array("<f4", ()),
        "empty": array("<f4", (0, 3)),
        "long list": list(range(3000)),
        "long dict": {str(i): i for i in range(3000)},
    }
    data = pickle.dumps(tree, protocol=protocol)
    assert_same(read_numpy_pickle(data), pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_come_out_as_pickle_load_gives_them(protocol: int) -> None:
    data = pickle.dumps({"lr": np.float32(0.01), "iterations": np.int64(400_000)}, protocol=protocol)
    value = read_numpy_pickle(data)
    assert value == pickle.loads(data)
    assert [type(scalar) for scalar in value.values()] == [np.float32, np.int64]


def python_2(value: object) -> bytes:
    """Bytes that Python 2 writes in protocol 2 for dicts, text, integers and float32 arrays, without the memo."""
    if isinstance(value, dict):
        return b"}(" + b"".join(python_2(key) + python_2(item) for key, item in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python_2, value)) + b"t"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, bytes):
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value
    assert isinstance(value, np.ndarray)
    dtype = b"cnumpy\ndtype\n" + python_2((b"f4", 0, 1)) + b"R(" + python_2(3) + python_2(b"<") + b"NNN"
    dtype += python_2(-1) + python_2(-1) + python_2(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + python_2((0,)) + python_2(b"b") + b"tR("
    return array + python_2(1) + python_2(value.shape) + dtype + b"\x89" + python_2(value.tobytes()) + b"tb"


def test_a_file_that_python_2_wrote() -> None:
    tree = {b"blobs": {b"conv1_w": array("<f4", (40, 3)) / 7, b"pred_b": array("<f4", (2,)), b"model_iter": 7}}
    data = b"\x80\x02" + python_2(tree) + b"."
    assert_same(read_numpy_pickle(data), pickle.loads(data, encoding="latin1"))


def test_arrays_share_the_files_memory_and_cannot_be_written() -> None:
    value = read_numpy_pickle(pickle.dumps({"a": array("<f4", (3,))}, protocol=4))["a"]
    assert not value.flags.writeable
    assert not value.flags.owndata


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class WithState:
    """Pickles as an object whose state is set by attribute."""

    def __init__(self) -> None:
        self.payload = 1


def touch(path: str) -> str:
    return f"import pathlib; pathlib.Path({path!r}).touch()"


@pytest.mark.parametrize("protocol", [0, 1, *PROTOCOLS])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda path: Calls(os.system, f"touch {path}"), r"(posix|nt)\.system"),
        (lambda path: Calls(exec, touch(path)), r"(builtins|__builtin__)\.exec"),
        (lambda path: Calls(eval, f"open({path!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (lambda path: {"params": {"a": [Calls(open, path, "w")]}}, r"(io|_io)\.open"),
        (lambda path: Calls(getattr, Calls(__import__, "os"), "system"), r"(builtins|__builtin__)\.getattr"),
        (lambda path: {"weights": Calls(np.load, path)}, r"numpy.*\.load"),
        (lambda path: WithState(), r"(test_numpy_pickle\.WithState|copyreg\._reconstructor|copy_reg\._reconstructor)"),
    ],
    ids=["os.system", "exec", "eval", "nested open", "getattr", "np.load", "object"],
)
def test_nothing_is_called_and_the_message_names_what_was_asked_for(tmp_path, protocol, make, named) -> None:
    sentinel = tmp_path / "touched"
    data = pickle.dumps(make(str(sentinel)), protocol=protocol)
    with pytest.raises(ModelError, match=rf"{named}|opcode \w+"):
        read_numpy_pickle(data)
    if protocol >= 2:
        with pytest.raises(ModelError, match=named):
            read_numpy_pickle(data)
    assert not sentinel.exists()


PROTO = pickle.PROTO + b"\x04"


def text(value: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + pickle.STACK_GLOBAL


RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
NDARRAY = name("numpy", "ndarray")
PENDING_ARRAY = RECONSTRUCT + NDARRAY + b"K\x00\x85" + b"C\x01b" + b"\x87R"
FLOAT = name("numpy", "dtype") + text("f4") + b"\x89\x88\x87R(K\x03" + text("<") + b"NNNK\x00K\x00K\x00tb"


def array_with(shape: bytes, contents: bytes) -> bytes:
    return PROTO + PENDING_ARRAY + b"(K\x01" + shape + FLOAT + b"\x89" + contents + b"tb."


BOMB_SHAPE = b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"t"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"hello", "damaged"),
        (pickle.dumps({"a": np.zeros(3)}, protocol=4)[:-20], "damaged"),
        (PROTO + b".", "0 objects"),
        (PROTO + b"NN.", "2 objects"),
        (PROTO + b"(.", "nothing to work on"),
        (PROTO + b"e.", "no mark"),
        (PROTO + b"Nu.", "no mark"),
        (PROTO + b"N(NNu.", "not a dict"),
        (PROTO + b"}(Nu.", "no value"),
        (PROTO + b"NNa.", "not a list"),
        (PROTO + b"h\x05.", "damaged"),
        (PROTO + b"}\x94(K\x01h\x00u.", "twice"),
        (PROTO + b"]\x94h\x00a.", "twice"),
        (PROTO + b"}(NK\x01u.", "NoneType"),
        (PROTO + b"P0\n.", "PERSID"),
        (PROTO + b"\x82\x01.", "EXT1"),
        (PROTO + b"(ios\nsystem\n.", "INST"),
        (PROTO + b"NN\x81.", "NEWOBJ"),
        (PROTO + NDARRAY + b")R.", "unexpected arguments"),
        (PROTO + RECONSTRUCT + text("numpy") + b"K\x00" + b"N\x87R.", "unexpected arguments"),
        (PROTO + text("os") + b")R.", "not a function"),
        (PROTO + NDARRAY + b".", "a name as data"),
        (PROTO + b"}" + text("a") + FLOAT + b"s.", "a name as data"),
        (PROTO + b"}" + text("a") + NDARRAY + b"\x85s.", "a name as data"),
        (PROTO + PENDING_ARRAY + b".", "no contents"),
        (PROTO + b"}" + text("a") + PENDING_ARRAY + b"s.", "no contents"),
        (PROTO + b"}Nb.", "not a tuple"),
        (PROTO + b"})b.", "does not fit"),
        (array_with(b"K\x02\x85", b"C\x04abcd"), "should have 8 bytes and has 4"),
        (array_with(b"J\xff\xff\xff\xff\x85", b"C\x04abcd"), "size that no array has"),
        (array_with(BOMB_SHAPE, b"C\x04abcd"), "size that no array has"),
        (array_with(b"(" + b"K\x01" * 40 + b"t", b"C\x04abcd"), "not a tuple of up to"),
        (array_with(b"K\x01\x85", b"N"), "contents are missing"),
        (PROTO + name("_codecs", "encode") + text("a") + text("rot13") + b"\x86R.", "unexpected arguments"),
        (PROTO + pickle.BINBYTES8 + struct.pack("<Q", 2**62) + b"abc.", "damaged"),
        (PROTO + pickle.BINUNICODE8 + struct.pack("<Q", 2**40) + b"abc.", "damaged"),
    ],
)
def test_damaged_and_crafted_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_numpy_pickle(data)


def test_the_helpers_of_these_tests_make_a_readable_array_with_the_names_of_numpy_1() -> None:
    np.testing.assert_array_equal(read_numpy_pickle(array_with(b"K\x01\x85", b"C\x04\x00\x00\x80\x3f")), [1.0])


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}, None], dtype=object),
        np.array(["text"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.zeros(2, dtype=[("a", "<f4")]),
        np.zeros(2, dtype="V8"),
    ],
    ids=["object", "text", "date", "record", "void"],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_other_things_than_numbers_are_refused(value: np.ndarray, protocol: int) -> None:
    with pytest.raises(ModelError, match=r"dtype|damaged"):
        read_numpy_pickle(pickle.dumps(value, protocol=protocol))


def test_shared_tuples_do_not_explode() -> None:
    doubling = b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(64))  # t = (t, t), 64 times: 2**64 leaves
    value = read_numpy_pickle(PROTO + b")" + doubling + b".")
    assert isinstance(value, tuple)
    assert value[0] is value[1]
    with pytest.raises(ModelError, match="dict key of type tuple"):  # its hash would take for ever
        read_numpy_pickle(PROTO + b"})" + doubling + b"Ns.")


def test_one_text_is_not_the_contents_of_many_arrays() -> None:
    """Each array would hold a copy: a small file could ask for any amount of memory."""
    contents = b"T" + struct.pack("<i", 4000) + bytes(4000)
    arrays = [PENDING_ARRAY + b"(K\x01M\xe8\x03\x85" + FLOAT + b"\x89" + get + b"tb" for get in (b"h\x00", b"h\x00")]
    one, two = (PROTO + contents + b"\x94](" + b"".join(arrays[:count]) + b"e\x86." for count in (1, 2))
    assert read_numpy_pickle(one)[1][0].shape == (1000,)
    with pytest.raises(ModelError, match="one text stands for several arrays"):
        read_numpy_pickle(two)


def test_too_many_opcodes_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(numpy_pickle, "MAX_OPCODES", 1000)
    with pytest.raises(ModelError, match="more than 1,000 opcodes"):
        read_numpy_pickle(PROTO + b"}" * 5000 + b".")
