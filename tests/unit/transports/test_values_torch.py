"""The value codec on torch tensors; runs where torch is installed."""

from __future__ import annotations

import pytest

from manta.transports.codec.value_types import _TENSOR_DTYPES
from manta.transports.codec.values import decode, encode
from manta.transports.errors import CorruptValue, ValueNotSerializable

torch = pytest.importorskip("torch")


def round_trip(tensor):
    encoded = encode({"t": tensor})
    buffer = bytearray(encoded.to_bytes())
    assert encoded.nbytes == len(buffer)
    results = decode(buffer)["t"], decode(bytes(buffer))["t"]
    for result in results:
        assert type(result) is torch.Tensor
        assert result.dtype == tensor.dtype
        assert result.shape == tensor.shape
        assert not result.requires_grad
        if tensor.numel():
            left, right = (t.detach().contiguous().view(-1) for t in (result, tensor))
            assert torch.equal(left.view(torch.uint8), right.resolve_conj().view(torch.uint8))
    return results[0]


@pytest.mark.parametrize("name", _TENSOR_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3,), (2, 3, 4)])
def test_tensors_come_back_as_they_were(name, shape):
    round_trip((torch.rand(shape) * 5).to(getattr(torch, name)))


def test_tensors_with_gaps_and_views():
    base = torch.arange(24.0).view(4, 6)
    for tensor in (base.t(), base[::2, 1::3], base.expand(2, 4, 6), base[0, 0]):
        round_trip(tensor)
    round_trip(torch.complex(base, base).conj())


def test_gradients_and_parameters_are_dropped():
    round_trip(torch.nn.Parameter(torch.ones(3)))
    round_trip(torch.ones(2, requires_grad=True) * 2)


def test_a_state_dict_round_trips():
    model = torch.nn.Linear(3, 2)
    state = decode(encode(model.state_dict()).to_bytes())
    assert model.load_state_dict(state)
    with pytest.raises(ValueNotSerializable, match=r"state_dict\(\)"):
        encode({"model": model})


def test_a_tensor_is_a_view_of_a_writable_buffer():
    buffer = bytearray(encode(torch.zeros(3)).to_bytes())
    decode(buffer)[1] = 5
    assert decode(buffer)[1] == 5


@pytest.mark.filterwarnings("ignore")
def test_odd_tensors_are_refused():
    for tensor, remedy in (
        (torch.ones(2).to_sparse(), "to_dense"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "dequantize"),
        (torch.empty(2, device="meta"), "materialised"),
        (torch.ones(2, dtype=torch.complex32), r"cfloat\(\)"),
    ):
        with pytest.raises(ValueNotSerializable, match=remedy):
            encode([tensor])


def test_corrupt_tensors_are_refused():
    data = encode(torch.ones(2)).to_bytes()
    with pytest.raises(CorruptValue):
        decode(data.replace(b"float32", b"float64"))
