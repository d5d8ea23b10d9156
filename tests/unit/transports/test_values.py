"""The value codec: round trips, refusals, hostile bytes."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import io
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import zoneinfo

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manta.transports.codec.values import MAX_DEPTH, OUT_OF_BAND, decode, encode
from manta.transports.errors import CorruptValue, MissingPackage, ValueNotSerializable

UTC = datetime.UTC


def assert_same(left, right):
    """Equal, and of the same types all the way down; NaN equals NaN, -0.0 is not 0.0."""
    assert type(left) is type(right)
    if isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, dict):
        for (key, value), (other_key, other_value) in zip(left.items(), right.items(), strict=True):
            assert_same(key, other_key)
            assert_same(value, other_value)
    elif isinstance(left, float):
        assert struct.pack("<d", left) == struct.pack("<d", right)
    elif isinstance(left, (np.ndarray, np.generic)):
        assert left.dtype == right.dtype
        assert left.dtype.byteorder == right.dtype.byteorder
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, datetime.datetime):
        assert left.replace(tzinfo=None) == right.replace(tzinfo=None)
        assert (left.tzinfo, left.fold) == (right.tzinfo, right.fold)
        assert left.tzname() == right.tzname()
    else:
        assert left == right


def round_trip(value):
    encoded = encode(value)
    data = encoded.to_bytes()
    assert len(data) == encoded.nbytes
    result = decode(data)
    assert_same(value, result)
    return result


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones())
)
keys = st.recursive(
    st.text(max_size=5)
    | st.integers()
    | st.binary(max_size=5)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False),
    lambda inner: st.tuples(inner, inner),
    max_leaves=4,
)
dtypes = (
    hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.boolean_dtypes()
    | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?")
    | hnp.byte_string_dtypes(min_len=1)
    | hnp.unicode_string_dtypes(min_len=1)
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
def test_values_come_back_as_they_were(value):
    round_trip(value)


@pytest.mark.parametrize(
    "value",
    [
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        -(2**4096),
        -0.0,
        math.nan,
        struct.unpack("<d", b"\x01\x02\x03\x04\x05\x06\xff\x7f")[0],
        math.inf,
        "\ud800 alone",
        os.fsdecode(b"file\xff"),
        (),
        ((), [()], {(): ()}),
        [[(1, [2, (3,)])]],
        {"a": 1, b"a": 2, 1: 3, (1, (b"x", None)): 4, None: 5, 2**70: 6},
        datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
        datetime.datetime.max.replace(
            tzinfo=datetime.timezone(-datetime.timedelta(hours=3, microseconds=7))
        ),
        b"x" * OUT_OF_BAND,
        "é\ud800" * OUT_OF_BAND,
        {"node": {"layer": b"y" * 70_000, "small": b"z"}, "text": ("t" * 20_000, [b""])},
        np.float64(1.5),
        np.float32("nan"),
        np.bool_(True),
        np.int8(-3),
        np.complex64(1 + 2j),
        np.str_("día"),
        np.str_(""),
        np.bytes_(b"ab"),
        np.datetime64("2024-01-01T00:00:00.000000007"),
        np.datetime64("NaT", "s"),
        np.timedelta64(5, "D"),
        np.array(3.0),
        np.empty((0, 3), ">i2"),
        np.empty((2, 0)),
        np.arange(6, dtype=">f4").reshape(2, 3),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}",
)
def test_particular_values(value):
    round_trip(value)


def test_utc_stays_the_one_utc():
    assert round_trip(datetime.datetime.now(UTC)).tzinfo is UTC


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4)[:, ::2, ::-1],
        np.arange(24).reshape(4, 6)[1:3, 2:5],
        np.broadcast_to(np.float32(2), (3, 4)),
        np.arange(4)[::-1],
    ],
)
def test_an_array_with_gaps_comes_back_whole(array):
    result = round_trip(array)
    assert result.flags.c_contiguous


def test_order_is_kept():
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4))
    result = round_trip(array)
    assert result.flags.f_contiguous
    assert not result.flags.c_contiguous


def test_subclasses_that_are_taken():
    assert type(round_trip_plain(collections.OrderedDict(b=1, a=2))) is dict
    assert round_trip_plain(collections.defaultdict(list, a=[1])) == {"a": [1]}
    assert round_trip_plain([collections.Counter("aab")]) == [{"a": 2, "b": 1}]


def round_trip_plain(value):
    return decode(encode(value).to_bytes())


def test_a_memmap_comes_back_as_an_array(tmp_path):
    array = np.memmap(tmp_path / "array", np.float32, "w+", shape=(5, 3))
    array[:] = 7
    result = round_trip_plain({"array": array})["array"]
    assert type(result) is np.ndarray
    assert (result == 7).all()


def test_arrays_are_views_of_the_buffer():
    encoded = encode({"small": 1, "weights": np.zeros((64, 64)), "bias": np.ones(3)})
    buffer = bytearray(encoded.to_bytes())
    value = decode(buffer)
    value["weights"][3, 4] = 9
    assert decode(buffer)["weights"][3, 4] == 9
    base = np.frombuffer(buffer, np.uint8).ctypes.data
    assert all((value[name].ctypes.data - base) % 64 == 0 for name in ("weights", "bias"))
    with pytest.raises(ValueError, match="read-only"):
        decode(bytes(buffer))["weights"][0, 0] = 1


def test_parts_are_not_copied():
    array = np.zeros(1000)
    parts = encode(array).parts()
    array[0] = 1.0
    assert decode(b"".join(parts))[0] == 1.0


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "place", "remedy"),
    [
        ({1, 2}, "value is", "sorted(...)"),
        ({"model": {"layer3": object()}}, 'value["model"]["layer3"] is', "dict of its fields"),
        ([1, (2, {"a b": 3j})], 'value[1][1]["a b"] is', "complex128"),
        ({(1, frozenset()): 2}, "value[(1, frozenset())] (the key)[1] is", "list(...)"),
        (pathlib.Path("x"), "value is", "str(...)"),
        (decimal.Decimal("1"), "value is", "str(...)"),
        (bytearray(b"x"), "value is", "bytes(...)"),
        ([memoryview(b"x")], "value[0] is", "bytes(...)"),
        (msgpack.ExtType(4, b""), "value is", "._asdict()"),
        ([msgpack.Timestamp(1)], "value[0] is", ""),
        (Colour.RED, "value is", ".value"),
        (Point(1), "value is", "asdict"),
        (Pair(1, 2), "value is", "._asdict()"),
        (datetime.date(2024, 1, 1), "value is", "isoformat"),
        (datetime.timedelta(1), "value is", "total_seconds"),
        ([np.array([object()])], "value[0] is of numpy type object", "list"),
        (np.zeros(2, [("a", int)]), "value is of numpy type", "a dict of its fields"),
        (np.longdouble(1), "value is of numpy type", "astype(float)"),
        (np.ma.masked_array([1], [True]), "value is of type numpy.ma", "its .filled(...)"),
        (io.BytesIO(b"x"), "value is of type _io.BytesIO", "its .getvalue()"),
        (
            datetime.datetime(2024, 1, 1, tzinfo=type("Odd", (datetime.tzinfo,), {})()),
            "value is a datetime in a zone",
            "astimezone",
        ),
    ],
    ids=lambda value: re.sub(" at 0x.*", "", f"{value!r:.24}"),  # the same in every process
)
def test_a_refusal_names_place_and_remedy(value, place, remedy):
    with pytest.raises(TypeError) as caught:
        encode(value)
    assert isinstance(caught.value, ValueNotSerializable)
    assert str(caught.value).startswith(place)
    assert remedy in str(caught.value)


def test_cycles_are_refused():
    cycle: dict = {"x": []}
    cycle["x"] += [cycle, cycle]
    with pytest.raises(ValueNotSerializable, match=r'^value\["x"\]\[0\] contains itself'):
        encode(cycle)


def test_an_alias_is_no_cycle():
    shared = [1]
    assert round_trip([shared, (shared, {"a": shared})])


def test_depth_has_a_limit():
    def nested(depth):
        value: object = 1
        for level in range(depth):
            value = [value] if level % 2 else {"k": value}
        return value

    round_trip(nested(MAX_DEPTH))
    with pytest.raises(ValueNotSerializable, match="more than 200 levels deep"):
        encode(nested(MAX_DEPTH + 1))


# Hostile bytes


def container(head, buffers=(), flags=0, magic=b"\x93MV\x01", tail=b""):
    data = struct.pack("<4sIII", magic, flags, len(buffers), len(head))
    data += struct.pack(f"<{len(buffers)}Q", *map(len, buffers)) + head
    for buffer in buffers:
        data += bytes(-len(data) % 64) + buffer
    return data + tail


def extension(code, data):
    return msgpack.packb(msgpack.ExtType(code, data))


def array_head(dtype="<f8", order="C", shape=(1,)):
    return extension(6, msgpack.packb([dtype, order, shape]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93MV\x01",
        container(b"\xc0", magic=b"\x93NUM"),
        container(b"\xc0", flags=2),
        container(b"\xc0", tail=b"x"),
        container(b"\xc0\xc0"),
        container(b"\xc1"),
        container(b""),
        container(b"\xc0", [b"unused"]),
        container(b"\xc0")[:-1],
        struct.pack("<4sIII", b"\x93MV\x01", 0, 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("<4sIIIQ", b"\x93MV\x01", 0, 1, 0, 2**64 - 1),
        container(extension(4, b"")),
        container(extension(9, b"")),
        container(extension(3, b"")),
        container(extension(3, b"\xff" * 14)),
        container(extension(3, struct.pack("<HBBBBBIBB", 1, 1, 1, 0, 0, 0, 0, 0, 1) + b"\x7f" * 8)),
        container(
            extension(3, struct.pack("<HBBBBBIBB", 1, 1, 1, 0, 0, 0, 0, 0, 2) + b"../../etc/passwd")
        ),
        container(b"\xc7\x0c\xff" + b"\xff" * 12),
        container(msgpack.packb({1: 2})[:1] + b"\x90\x01"),
        container(b"\xa1\xff"),
        container(array_head(), [b"x" * 7]),
        container(array_head("O"), [b"x" * 8]),
        container(array_head("|O8"), [b"x" * 8]),
        container(array_head("<V8"), [b"x" * 8]),
        container(array_head("<f8", "X"), [b"x" * 8]),
        container(array_head("<U0", shape=(10**18,)), [b""]),
        container(array_head(shape=(-1, -1)), [b"x" * 8]),
        container(array_head(shape=(2**61, 2**61, 0)), [b""]),
        container(array_head(shape=(1,) * 65), [b"x" * 8]),
        container(array_head(shape=(True,)), [b"x" * 8]),
        container(array_head(shape=1), [b"x" * 8]),
        container(array_head("f8,f8"), [b"x" * 16]),
        container(extension(6, b"\x93" * 2000), [b""]),
        container(extension(7, b"")),
        container(extension(7, b"\x03<f8" + b"x" * 7)),
        container(extension(7, b"\x03|O8" + b"x" * 8)),
        container(extension(8, msgpack.packb(["object", [1]])), [b"x"]),
        container(b"\x91" * 5000 + b"\xc0"),
        container(b"\xdd\xff\xff\xff\xff" * 40),
        container(b"\xdf\xff\xff\xff\xff" * 400),
        container(b"\xc6\xff\xff\xff\xff" + b"x" * 400),
    ],
    ids=lambda data: f"{data[16:40]!r}",
)
def test_corrupt_bytes_are_refused(data):
    with pytest.raises(CorruptValue):
        decode(data)


def test_a_newer_format_is_told():
    with pytest.raises(CorruptValue, match="format 2"):
        decode(container(b"\xc0", magic=b"\x93MV\x02"))


def test_a_tuple_mark_elsewhere_is_harmless():
    mark = extension(1, b"")
    assert isinstance(decode(container(mark)), msgpack.ExtType)
    assert decode(container(b"\x92" + mark + b"\x01", flags=1)) == (1,)


@pytest.mark.parametrize(
    "head",
    [
        b"\xdd\x00\x10\x00\x00" * 200_000,  # nested arrays, each claiming a million elements
        b"\xdd\x00\x0f\xff\xff" + b"\xdd\x00\x10\x00\x00" * 209_000,
        b"\xdc\xff\xff" * 1000 + b"\xc0" * 100_000,
    ],
)
def test_claims_are_checked_before_anything_is_allocated(head):
    data = container(head)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptValue):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data)


@pytest.mark.parametrize("head", [b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20)])
def test_a_bomb_of_empty_maps_grows_in_proportion(head):
    tracemalloc.start()
    try:
        decode(container(head))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * len(head)


SEEDS = [
    encode(value).to_bytes()
    for value in (
        {"a": [1, 2.5, None, True], "b": ("x", b"y", 2**80), (1, 2): datetime.datetime.now(UTC)},
        {"w": np.arange(12.0).reshape(3, 4), "s": np.float32(1), "l": ["x" * 20_000]},
        [np.asfortranarray(np.ones((2, 3), ">i2")), np.array(["ab", "c"]), [[], {}, ()]],
        datetime.datetime.now(zoneinfo.ZoneInfo("Asia/Tokyo")),
    )
]


def mutated(generator, data):
    data = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 5, 20))):
        at = generator.randrange(len(data))
        if generator.random() < 0.7:
            at = generator.randrange(min(len(data), 120))  # where the structure is
        action = generator.randrange(4)
        if action == 0:
            data[at] = generator.choice((0, 1, 0x7F, 0x80, 0x90, 0xC7, 0xDD, 0xDF, 0xFF))
        elif action == 1:
            data[at] ^= 1 << generator.randrange(8)
        elif action == 2:
            del data[at : at + generator.randrange(1, 9)]
        else:
            data[at:at] = generator.randbytes(generator.randrange(1, 9))
        if not data:
            return b""
    return bytes(data)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy, of odd datetime units
def test_fuzz_never_breaks_the_decoder():
    """Any bytes are a value or CorruptValue, and memory stays bounded."""
    generator = random.Random(32)
    tracemalloc.start()
    decoded = 0
    try:
        for number in range(20_000):
            if number % 4:
                data = mutated(generator, generator.choice(SEEDS))
            else:
                data = container(generator.randbytes(generator.randrange(1, 300)), flags=number & 1)
            try:
                decode(data)
                decoded += 1
            except (CorruptValue, MissingPackage):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded > 100  # else the mutations test nothing but the magic
    assert peak < 50 << 20


# Without numpy, and with nothing but msgpack


def run_python(code, **environment):
    root = pathlib.Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("pure", ["", "1"])
def test_imports_nothing_but_msgpack(pure):
    code = """
import sys
from manta.transports.codec.values import encode, decode
heavy = {"zmq", "lz4", "numpy", "msgspec", "cryptography", "nacl", "blake3", "torch"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
value = {"a": [1, (2, None)], "b": b"x" * 70_000, 3: 2**99}
assert decode(encode(value).to_bytes()) == value
deep = []
for _ in range(199):
    deep = [deep]
assert decode(encode(deep).to_bytes()) == deep
"""
    done = run_python(code, MSGPACK_PUREPYTHON=pure)
    assert done.returncode == 0, done.stderr


def test_an_array_without_numpy_is_a_clear_error():
    data = encode([np.arange(3)]).to_bytes()
    code = f"""
import sys
sys.modules["numpy"] = None
from manta.transports.codec.values import decode
from manta.transports.errors import MissingPackage
try:
    decode({data!r})
except MissingPackage as error:
    assert "numpy" in str(error) and "requirements" in str(error), error
else:
    sys.exit("no error")
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
