"""``examples/compare_decoders.py``."""

from PIL import Image
from small_models import small_target, small_vqvae

from sdvar_jax.checkpoint import save_checkpoint


def test_a_row_a_decoder_that_tells_its_calls_and_how_far_it_is_from_the_target(
    example, pair, tmp_path
):
    code, out, err = example("compare_decoders", "3", "4", "--model", pair, "--until", 2)
    assert (code, err) == (0, "")
    *rows, written = out.splitlines()
    assert [row.split(";")[0] for row in rows] == [
        "target",
        "draft",
        "speculative, exact",
        "speculative, match 0.5",
        "exact until scale 2, then draft",
        "target until scale 2, then draft",
    ]
    assert rows[0] == "target; 3 of 3 target calls; 0.0 % of tokens differ"
    assert "; 0 of 3 target calls; " in rows[1]
    assert rows[2].endswith("; 0.0 % of tokens differ")
    assert "; 2 of 3 target calls; " in rows[5]
    # The first two scales of both are the target's own, and the draft's the rest.
    assert rows[4].split(";")[2] == rows[5].split(";")[2]
    assert written == "wrote decoders.png"
    with Image.open(tmp_path / "decoders.png") as sheet:
        assert sheet.height > 6 * 128
        assert sheet.width > 3 * 128


def test_rows_can_be_chosen(example, pair, tmp_path):
    words = ("3", "--model", pair, "--decoders", "handoff", "--until", 0, "--out", "one.png")
    code, out, _ = example("compare_decoders", *words)
    assert code == 0
    assert out.startswith("target until scale 0, then draft; 0 of 3 target calls")
    assert out.endswith("\nwrote one.png\n")


def test_what_cannot_be_compared_is_told_before_anything_is_compiled(example, pair, tmp_path):
    code, _, err = example("compare_decoders", "--model", pair, "--until", 9)
    assert (code, "check_until must lie in 1..3" in err) == (2, True)
    models = {"var": small_target(), "vqvae": small_vqvae()}
    save_checkpoint(tmp_path / "alone", storage="safetensors", **models)
    code, _, err = example("compare_decoders", "--model", "alone")
    assert (code, "holds no draft; name one with --draft" in err) == (2, True)
