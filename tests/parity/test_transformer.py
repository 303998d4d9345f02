"""The transformer's parts and its teacher-forced forward, against the original's."""

import jax.numpy as jnp
import numpy as np
import pytest
from original_var import quietly, tensor
from parity_models import compiled

from sdvar_jax.models import VAR, block_causal_mask

pytestmark = pytest.mark.torch

TOLERANCE = 2e-4


@pytest.fixture
def labels(pair):
    """Classes of two rows; the second is the one that stands for none."""
    return np.array([7, pair.var.config.unconditional_label])


@pytest.fixture
def hidden(pair):
    """What might run between blocks, [2, total_length, width]."""
    shape = (2, pair.var.config.pyramid.total_length, pair.var.config.width)
    return np.random.RandomState(5).standard_normal(shape).astype(np.float32)


@pytest.fixture
def condition(pair, labels):
    """The original's class embedding, and what it gives to its blocks."""
    with quietly():
        embedded = pair.torch_var.class_emb(tensor(labels))
        return embedded, pair.torch_var.shared_ada_lin(embedded)


def test_adaln_of_blocks_and_head(pair, labels, condition):
    embedded, for_blocks = condition
    modulations = pair.var.modulations(jnp.asarray(labels))
    pair.assert_close("class", modulations.condition, embedded.numpy(), TOLERANCE)
    width = pair.var.config.width
    with quietly():
        for i, block in enumerate(pair.torch_var.blocks):
            shared = pair.var.config.shared_aln
            wanted = block.ada_gss + for_blocks if shared else block.ada_lin(for_blocks)
            wanted = wanted.reshape(-1, 6, width).numpy()
            pair.assert_close(f"AdaLN {i}", modulations.blocks[i], wanted, TOLERANCE)
        wanted = pair.torch_var.head_nm.ada_lin(embedded).reshape(-1, 2, width).numpy()
    pair.assert_close("AdaLN of the head", modulations.head, wanted, TOLERANCE)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("place", [0, -1])
def test_block(pair, labels, condition, hidden, place, masked):
    theirs, ours = pair.torch_var.blocks[place], pair.var.blocks[place]
    bias = pair.torch_var.attn_bias_for_masking if masked else None
    mask = jnp.asarray(block_causal_mask(pair.var.config.pyramid)) if masked else None
    modulation = pair.var.modulations(jnp.asarray(labels)).blocks[place]
    with quietly():
        attended = theirs.attn(tensor(hidden), bias).numpy()
        fed = theirs.ffn(tensor(hidden)).numpy()
        wanted = theirs(x=tensor(hidden), cond_BD=condition[1], attn_bias=bias).numpy()
    x = jnp.asarray(hidden)
    got = compiled(lambda attn, x: attn.attend(*attn.project(x), mask), ours.attn, x)
    pair.assert_close("attention", got, attended, TOLERANCE)
    pair.assert_close("feed-forward", compiled(lambda ffn, x: ffn(x), ours.ffn, x), fed, TOLERANCE)
    got = compiled(lambda block, *args: block(*args, mask=mask)[0], ours, x, modulation)
    pair.assert_close("block", got, wanted, TOLERANCE)


def test_head(pair, labels, condition, hidden):
    with quietly():
        wanted = pair.torch_var.get_logits(tensor(hidden), condition[0]).numpy()
    modulations = pair.var.modulations(jnp.asarray(labels))
    got = compiled(VAR.logits, pair.var, jnp.asarray(hidden), modulations)
    pair.assert_close("logits", got, wanted, TOLERANCE)


def test_teacher_forced_forward(pair, labels):
    config = pair.var.config
    random = np.random.RandomState(8)
    tokens = [random.randint(0, config.vocab_size, (2, n)) for n in config.pyramid.lengths]
    with quietly():
        inputs = pair.torch_vqvae.quantize.idxBl_to_var_input([tensor(t) for t in tokens])
        wanted = pair.torch_var(tensor(labels), inputs).numpy()
    inputs = jnp.asarray(inputs.numpy())
    got = compiled(VAR.teacher_forced, pair.var, jnp.asarray(labels), inputs)
    pair.assert_close("logits", got, wanted, TOLERANCE)
