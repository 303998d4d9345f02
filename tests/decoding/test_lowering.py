"""The decoders lower for CPUs, GPUs and TPUs, without any of them."""

import jax
import pytest
from decoding_models import Models, tiny_models, tiny_request
from jax import export

from sdvar_jax.decoding import Handoff, Speculative, TargetOnly, TokenSampling
from sdvar_jax.decoding.speculative import Residual

PLATFORMS = ("cpu", "cuda", "tpu")
DECODERS = {
    "target only": TargetOnly(),
    "exact": Speculative(gamma=2),
    "residual, check until": Speculative(gamma=1, accept=Residual(), check_until=2),
    "adaptive, recycled": Speculative(gamma="adaptive", adaptive_gammas=(0, 2), recycle=True),
    "handoff": Handoff(entry=1),
}


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_lowers_for_every_platform(decoder):
    models, sampling = tiny_models(), TokenSampling(guided_until=3)

    def program(states, request):
        return decoder.decode(Models(models.graphs, states).merged(), request, sampling).tokens

    exported = export.export(jax.jit(program), platforms=PLATFORMS)(models.states, tiny_request())
    assert exported.platforms == PLATFORMS
    text = exported.mlir_module()
    if isinstance(decoder, Speculative):
        # The loop and its choice of windows are part of the program, not run on the host.
        assert "stablehlo.while" in text
        assert "stablehlo.case" in text
    assert (exported.out_avals[0].shape, exported.out_avals[0].dtype) == ((1, 14), "int32")
