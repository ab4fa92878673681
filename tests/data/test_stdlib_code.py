"""The standard library as four kinds of code, read from the Python that runs and from small made-up libraries."""

import ast
import builtins
import sysconfig
from pathlib import Path

import pytest

from aya_jax.config import UserError
from aya_jax.data.stdlib_code import DEFAULT_BYTES, KINDS, StandardLibrarySource


def texts(kind: str, **options) -> list[str]:
    return [record.text for record in StandardLibrarySource(kind, **options).records(0, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_text_within_its_bound(kind):
    found = texts(kind)
    size = sum(len(text.encode()) for text in found)
    assert len(found) >= 30
    assert DEFAULT_BYTES[kind] / 3 < size <= DEFAULT_BYTES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_keeps_a_prefix(kind):
    bounded = texts(kind, max_bytes=60_000)
    assert 0 < sum(len(text.encode()) for text in bounded) <= 60_000
    assert texts(kind)[: len(bounded)] == bounded


def test_web_code_is_the_files_as_they_are():
    library = Path(sysconfig.get_path("stdlib"))
    for record in list(StandardLibrarySource("web_code").records(0, 1))[:20]:
        assert record.text == (library / record.id).read_text(encoding="utf-8")
        assert "test" not in Path(record.id).parts
        assert "site-packages" not in record.id


def test_the_python_kinds_share_no_module():
    modules = {
        kind: {record.id.partition("#")[0] for record in StandardLibrarySource(kind, 10**9).records(0, 1)}
        for kind in ("web_code", "quality_code", "code_adjacent")
    }
    assert not modules["web_code"] & modules["quality_code"]
    assert not modules["web_code"] & modules["code_adjacent"]
    assert not modules["quality_code"] & modules["code_adjacent"]


def test_quality_code_is_documented_and_needs_only_what_it_imports():
    for text in texts("quality_code")[:60]:
        tree = ast.parse(text)
        definition = tree.body[-1]
        assert ast.get_docstring(definition)
        assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body[:-1])
        # Python's own compiler says which global names the code reads.
        globals_read = _global_names(compile(text, "snippet", "exec"))
        bound = {alias.asname or alias.name.partition(".")[0] for node in tree.body[:-1] for alias in node.names}
        assert globals_read <= bound | set(dir(builtins)) | {definition.name, "__name__", "__class__"}


def _global_names(code) -> set[str]:
    import dis
    from types import CodeType

    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return names.union(*(_global_names(const) for const in code.co_consts if isinstance(const, CodeType)))


def test_markup_is_markup():
    found = texts("markup")
    assert any("</" in text for text in found)
    assert sum("\n***" in text or "\n===" in text for text in found) > 30  # reST titles


def test_code_adjacent_is_prose_not_code(tmp_path):
    source = '"""What this is for."""\n\n# A comment\n# of two lines.\n\n\n'
    source += 'def add(a, b=1):\n    """Adds."""\n    return a + b\n'
    for number in range(40):  # some of the names fall to this kind
        (tmp_path / f"m{number}.py").write_text(source + "# filler\n" * 30, encoding="utf-8")
    found = texts("code_adjacent", root=str(tmp_path))
    assert found
    for text in found:
        assert text.startswith("What this is for.\n\ndef add(a, b=1)\n\nAdds.\n\nA comment\nof two lines.")
        assert "return" not in text


def test_shards_deal_the_documents_out():
    source = StandardLibrarySource("markup")
    parts = [[record.id for record in source.records(shard, 3)] for shard in range(3)]
    everything = [record.id for record in source.records(0, 1)]
    assert sorted(part for parts_ in parts for part in parts_) == sorted(everything)
    assert parts[1] == everything[1::3]


def test_digest_follows_the_content(tmp_path):
    (tmp_path / "style.css").write_text("p { color: red }\n" * 20)
    source = StandardLibrarySource("markup", root=str(tmp_path))
    first = source.digest()
    other = tmp_path / "other"
    other.mkdir()
    (other / "style.css").write_text("p { color: blue }\n" * 20)
    assert StandardLibrarySource("markup", root=str(other)).digest() != first
    assert len(first) == 64


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(UserError, match="no kind of code 'perl'"):
        texts("perl")
    with pytest.raises(UserError, match="no Python standard library"):
        texts("markup", root=str(tmp_path / "nowhere"))


def test_broken_modules_are_passed_over(tmp_path):
    for number in range(40):
        (tmp_path / f"m{number}.py").write_bytes(b"def broken(:\n" * 40)
        (tmp_path / f"latin{number}.py").write_bytes(b"# \xe9\n" * 100)
    assert texts("quality_code", root=str(tmp_path)) == []
    assert texts("code_adjacent", root=str(tmp_path)) == []
