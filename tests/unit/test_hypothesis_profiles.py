"""Which examples hypothesis takes: the same ones in `make test`, random ones in `make fuzz`."""

from __future__ import annotations

import hypothesis


def test_make_test_takes_the_same_examples_each_time() -> None:
    profile = hypothesis.settings.get_profile("dialer")
    assert profile.derandomize
    assert profile.max_examples == 100


def test_make_fuzz_takes_random_ones_and_more_of_them() -> None:
    profile = hypothesis.settings.get_profile("fuzz")
    assert not profile.derandomize
    assert profile.max_examples >= 1000
    assert profile.print_blob
