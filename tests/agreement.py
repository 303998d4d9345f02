"""When two computations of the same thing in float32 agree.

The errors found are printed; ``pytest -rP`` shows them.
"""

import numpy as np


def assert_close(what, got, wanted, tolerance):
    """Equal shapes, and no value further off than ``tolerance``."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, what
    print(f"{what}: largest error {np.max(np.abs(got - wanted)):.1e}, limit {tolerance:.1e}")
    np.testing.assert_allclose(got, wanted, atol=tolerance, rtol=0, err_msg=what)


def margin(scores):
    """How far the largest score is above the second, [..., choices] -> [...]."""
    two = np.partition(scores, -2, axis=-1)[..., -2:]
    return two[..., 1] - two[..., 0]


def assert_same_tokens(what, got, wanted, margins, uncertain):
    """Token maps are equal scale by scale, up to one where rounding decided.

    Args:
      what: for messages.
      got: one array a scale.
      wanted: likewise.
      margins: of the choice of each token of ``wanted``.
      uncertain: at a margin up to this, rounding may decide.

    Returns:
      Whether all are equal. If not, what follows the first scale that differs hangs on it and is
      not compared.
    """
    for scale, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape, what
        differ = ours != theirs
        if differ.any():
            told = f"{what}: scale {scale} differs at margins {margins[scale][differ]}"
            assert (margins[scale][differ] <= uncertain).all(), told
            print(told)
            return False
    print(f"{what}: all equal, smallest margin {min(m.min() for m in margins):.1e}")
    return True
