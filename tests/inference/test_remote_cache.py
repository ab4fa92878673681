import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.inference.remote_cache import RemoteCache, request_key

URL, BODY, ANSWER = "http://h/v1/chat/completions", {"model": "m", "seed": 1, "n": 2}, {"choices": ["Γειά", 0.1]}


@pytest.fixture
def cache(tmp_path):
    return RemoteCache(tmp_path / "cache")


def test_what_was_put_is_got(cache):
    assert cache.get(URL, BODY) is None
    cache.put(URL, BODY, ANSWER)
    assert cache.get(URL, BODY) == ANSWER
    assert cache.get(URL, dict(reversed(BODY.items()))) == ANSWER
    assert RemoteCache(cache.directory).get(URL, BODY) == ANSWER


def test_a_tuple_in_a_body_is_a_list(cache):
    """Gin makes tuples of the lists in extra_body."""
    cache.put(URL, BODY | {"tags": ("a", "b")}, ANSWER)
    assert cache.get(URL, BODY | {"tags": ("a", "b")}) == cache.get(URL, BODY | {"tags": ["a", "b"]}) == ANSWER


def test_a_key_is_the_digest_of_canonical_json():
    canonical = '{"body":{"model":"m","n":2,"seed":1},"url":"http://h/v1/chat/completions"}'
    assert request_key(URL, BODY) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize("url", [URL, "http://h/v1/completions"])
@pytest.mark.parametrize("change", [{}, {"seed": 2}, {"n": 3}, {"model": "k"}, {"temperature": 0.5}, {"seed": 1.5}])
def test_another_question_has_another_answer(cache, url, change):
    cache.put(URL, BODY, ANSWER)
    same = url == URL and not change
    assert (cache.get(url, BODY | change) is not None) == same


@given(flip=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_damaged_file_is_no_answer_or_the_same(tmp_path_factory, flip, bit):
    cache = RemoteCache(tmp_path_factory.getbasetemp() / "damaged")
    cache.put(URL, BODY, ANSWER)
    file = cache.path(URL, BODY)
    content = bytearray(file.read_bytes())
    content[flip % len(content)] ^= 1 << bit
    file.write_bytes(content)
    assert cache.get(URL, BODY) in (None, ANSWER)


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"answer": {}}', "[" * 100_000, "5"])
def test_what_is_no_entry(cache, content):
    cache.put(URL, BODY, ANSWER)
    cache.path(URL, BODY).write_text(content)
    assert cache.get(URL, BODY) is None
    cache.put(URL, BODY, ANSWER)
    assert cache.get(URL, BODY) == ANSWER


def test_a_changed_word_is_seen(cache):
    cache.put(URL, BODY, {"text": "yes"})
    file = cache.path(URL, BODY)
    file.write_text(file.read_text().replace("yes", "no!"))
    assert cache.get(URL, BODY) is None


def test_the_answer_to_another_question_is_not_taken(cache):
    cache.put(URL, BODY, ANSWER)
    other = BODY | {"seed": 9}
    cache.path(URL, other).parent.mkdir(exist_ok=True)
    cache.path(URL, BODY).rename(cache.path(URL, other))
    assert cache.get(URL, other) is None


def test_size(cache):
    assert (cache.size().answers, cache.size().bytes) == (0, 0)
    for seed in range(3):
        cache.put(URL, BODY | {"seed": seed}, ANSWER)
    (cache.path(URL, BODY).parent / ".left.tmp").write_text("of a process that was killed")
    files = list(cache.directory.rglob("*.json"))
    assert (cache.size().answers, cache.size().bytes) == (3, sum(len(file.read_bytes()) for file in files))


def test_files_are_readable_by_people(cache):
    cache.put(URL, BODY, ANSWER)
    entry = json.loads(cache.path(URL, BODY).read_text())
    assert (entry["url"], entry["body"], entry["answer"], entry["version"]) == (URL, BODY, ANSWER, 1)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="in the way"):
        RemoteCache(tmp_path / "cache")
