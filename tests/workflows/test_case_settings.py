"""Overrides of a prediction's post-processing and opacity rule."""

from __future__ import annotations

import pytest

from m2unet.errors import M2UNetError
from m2unet.inference.postprocess import PostprocessConfig
from m2unet.quantify.opacity import OpacityConfig
from m2unet.workflows.case_settings import case_settings


def test_nothing_said_is_the_default() -> None:
    assert case_settings([]) == (PostprocessConfig(), OpacityConfig())


def test_each_override_sets_its_key_alone() -> None:
    said = ["postprocess.fill_holes=false", "postprocess.keep_share=1", "opacity.consolidation_from_hu=-250"]
    steps, cuts = case_settings(said)
    assert steps == PostprocessConfig(fill_holes=False, keep_share=1.0)
    assert cuts == OpacityConfig(consolidation_from_hu=-250)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("fill_holes=false", "names a step or a cut"),
        ("postprocess.holes=false", "fill_holes=true|false"),
        ("postprocess.fill_holes=0.3", "fill_holes=0.3"),
        ("postprocess.fill_holes", "fill_holes"),
        ("postprocess.keep_share=true", "keep_share=0..1"),
        ("postprocess.keep_share=2", "0 to 1"),
        ("opacity.nothing=2", "nothing"),
    ],
)
def test_what_does_not_fit_is_refused(said: str, told: str) -> None:
    with pytest.raises(M2UNetError) as error:
        case_settings([said])
    assert told in str(error.value)
