import pytest

pytest.register_assert_rewrite("tests.kubernetes.place", "tests.kubernetes.controlplane")
