import sys

import pytest

from aya_jax.config import UserError
from aya_jax.inference.remote_client import import_httpx, read_key


def test_a_key(tmp_path):
    (tmp_path / "key").write_text("  sk-5\n\n")
    assert read_key(str(tmp_path / "key")) == "sk-5"
    assert read_key(None) is None


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb", "ключ"])
def test_what_is_no_key(tmp_path, content):
    (tmp_path / "key").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="api_key_file"):
        read_key(str(tmp_path / "key"))


def test_no_key_file(tmp_path):
    with pytest.raises(UserError, match=r"api_key_file.*No such file"):
        read_key(str(tmp_path / "none"))


def test_without_httpx(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(UserError, match=r"aya_jax\[remote\]"):
        import_httpx()
