"""Arrays, dicts and models as bytes."""

from __future__ import annotations

import io
from typing import Any

import msgpack
import numpy as np
import pytest

from manta.light.errors import DataCorruptionError, UnsupportedData
from manta.light.utils import (
    bytes_to_dict,
    bytes_to_numpy,
    bytes_to_torchmodel,
    dict_to_bytes,
    numpy_to_bytes,
    torchmodel_to_bytes,
)


def test_arrays_as_bytes() -> None:
    nested = {"n1": {"w": np.arange(3), "b": [1.5, 2]}, "n2": {"w": np.float32(3)}}
    there = numpy_to_bytes(nested)
    assert isinstance(there["n1"]["w"], bytes)
    back = bytes_to_numpy(there)
    np.testing.assert_array_equal(back["n1"]["w"], np.arange(3))
    np.testing.assert_array_equal(back["n1"]["b"], [1.5, 2])
    assert back["n2"]["w"] == 3
    assert back["n2"]["w"].dtype == np.float32
    with pytest.raises(TypeError, match=r"value\['w'\]\[1\] makes an array of Python objects"):
        numpy_to_bytes({"w": [{}, [object()]]})
    for bad in (b"", b"nonsense", numpy_to_bytes([1, 2])[:-1]):
        with pytest.raises(DataCorruptionError, match=r"data\['n'\]\['w'\] is not an array"):
            bytes_to_numpy({"n": {"w": bad}})
    with pytest.raises(TypeError, match=r"data\[0\] is a int"):
        bytes_to_numpy([3])


def test_masks_are_not_lost() -> None:
    masked = np.ma.masked_array([1.0, -999.0], [False, True])
    for nest, place in (
        (masked, "value"),
        ({"a": {"b": masked}}, r"value\['a'\]\['b'\]"),
        ([masked, masked], r"value\[0\]"),
        ({"a": [{"x": 1}, [np.ones(2), masked]]}, r"value\['a'\]\[1\]\[1\]"),
        ([1.0, np.ma.masked], r"value\[1\]"),
    ):
        with pytest.raises(TypeError, match=rf"^{place} is a masked array.*\.filled"):
            numpy_to_bytes(nest)
    open_ = np.ma.masked_array([1.0, 2.0])
    assert bytes_to_numpy(numpy_to_bytes([open_, open_])).tolist() == [[1, 2], [1, 2]]
    parts = {"data": masked.data, "mask": masked.mask}
    back = bytes_to_numpy(numpy_to_bytes(parts))
    assert np.ma.masked_array(**back).sum() == 1


def test_tensors_as_bytes() -> None:
    torch = pytest.importorskip("torch")
    assert bytes_to_numpy(numpy_to_bytes({"w": torch.ones(2)}))["w"].tolist() == [1, 1]
    for tensor in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        with pytest.raises(TypeError, match=r"value\['w'\] makes no array: "):
            numpy_to_bytes({"w": tensor})


def test_lists_that_make_no_array_are_walked() -> None:
    layers = [np.ones((2, 3)), np.ones(3)]
    for nest in ([{"w": np.arange(2)}, {"b": [1, 2]}], {"n": layers}, [[{"w": 1}], [{"w": 2}]]):
        there = numpy_to_bytes(nest)
        assert str(bytes_to_numpy(there)) == str(_as_arrays(nest))
    assert isinstance(numpy_to_bytes([[1, 2], [3, 4]]), bytes)


def _as_arrays(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {key: _as_arrays(item) for key, item in nest.items()}
    if isinstance(nest, list) and any(isinstance(item, dict | list | np.ndarray) for item in nest):
        return [_as_arrays(item) for item in nest]
    return np.asarray(nest)


def test_dicts_as_bytes() -> None:
    value = {"a": [1, None, b"x", {"b": 2.5}], 3: True}
    assert bytes_to_dict(dict_to_bytes(value)) == value
    with pytest.raises(TypeError, match=r"turn arrays into bytes with numpy_to_bytes\(\)"):
        dict_to_bytes({"a": np.ones(2)})
    for bad in (b"", b"\x93\x01", b"\x01\x02", b"\xc1", b"\xa1\xff", b"\x91" * 5000):
        with pytest.raises(DataCorruptionError, match=r"not msgpack: ."):
            bytes_to_dict(bad)
    with pytest.raises(TypeError, match="takes bytes, not a str"):
        bytes_to_dict("x")  # type: ignore[arg-type]


def test_any_msgpack_is_read() -> None:
    for value in ([1, {"a": 2}], 3, "text", None, {"t": msgpack.ExtType(5, b"x")}, {}):
        assert bytes_to_dict(msgpack.packb(value)) == value
    keyed = {(1, ("a", 2)): 1, b"raw": {2.5: None}, None: [True]}
    assert bytes_to_dict(dict_to_bytes(keyed)) == keyed
    assert bytes_to_dict(b"\x81\x81\xa1a\x01\x02") == {(("a", 1),): 2}
    assert bytes_to_dict(bytearray(msgpack.packb({"a": 1}))) == {"a": 1}


def test_torch_models_as_bytes() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 3)
    data = torchmodel_to_bytes(model)
    assert torch.equal(bytes_to_torchmodel(data)["weight"], model.weight)
    other = bytes_to_torchmodel(data, torch.nn.Linear(2, 3))
    assert torch.equal(other.weight, model.weight)
    for bad in (b"", b"nonsense", data[:-30]):
        with pytest.raises(DataCorruptionError, match="not the state of a torch model"):
            bytes_to_torchmodel(bad)
    with pytest.raises(UnsupportedData, match=r"These bytes hold a pickle: save the state_dict"):
        bytes_to_torchmodel(_PICKLE)
    file = io.BytesIO()
    torch.save(model, file)
    with pytest.raises(UnsupportedData, match=r"besides tensors \(torch.*Linear\): save the state"):
        bytes_to_torchmodel(file.getvalue())
    with pytest.raises(DataCorruptionError, match=r"does not fit a Linear: .*size mismatch"):
        bytes_to_torchmodel(data, torch.nn.Linear(3, 3))
    with pytest.raises(TypeError, match="takes a model or its state dict, not a int"):
        torchmodel_to_bytes(3)


_PICKLE = b"\x80\x04cbuiltins\nprint\n)R."
"""It would call a function."""
