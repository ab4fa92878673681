import pytest

from aya_jax.evaluation.harness.names import describe, item_name


@pytest.mark.parametrize(
    ("task", "dataset_name", "family", "language"),
    [
        ("xcopa_zh", "zh", "xcopa", "zh"),
        ("mgsm_direct_de", "de", "mgsm_direct", "de"),
        ("mgsm_en_cot_de", "de", "mgsm_en_cot", "de"),
        ("mgsm_en_cot_en", "en", "mgsm_en_cot", "en"),
        ("global_mmlu_full_he_high_school_physics", "he", "global_mmlu_full_high_school_physics", "he"),
        ("global_mmlu_id_stem", "id", "global_mmlu_stem", "id"),
        ("belebele_arb_Arab", "arb_Arab", "belebele", "ar"),
        ("belebele_zho_Hans", "zho_Hans", "belebele", "zh"),
        ("include_base_44_german_stem", "German", "include_base_44_stem", "de"),
        ("xstorycloze_es", "es", "xstorycloze", "es"),
        ("xquad_el", "xquad.el", "xquad", "el"),
        ("ntrex_en_de", None, "ntrex_en_x", "de"),
        ("ntrex_de_en", None, "ntrex_x_en", "de"),
        ("flores_en_zh", None, "flores_en_x", "zh"),
        ("flores_id_en", None, "flores_x_en", "id"),
        ("xlsum_fr", None, "xlsum", "fr"),
        ("xlsum_en", None, "xlsum", "en"),
        ("hellaswag", None, "hellaswag", "en"),
        ("sib200_fa", None, "sib200", "fa"),
    ],
)
def test_languages_are_found_in_names(task, dataset_name, family, language):
    assert describe(task, dataset_name) == (family, language)


def test_questions_of_parallel_benchmarks_have_one_name_in_all_languages():
    assert item_name("xcopa", "xcopa_it", 3, {"idx": 7}) == item_name("xcopa", "xcopa_zh", 9, {"idx": 7}) == "xcopa/7"
    assert item_name("mgsm_direct", "mgsm_direct_de", 3, {}) == "mgsm_direct/3"
    assert item_name("exams", "exams_de", 3, {"id": "a"}) == "exams_de/a"
    assert (
        item_name("global_mmlu_full_x", "global_mmlu_full_de_x", 0, {"sample_id": "x/test/0"})
        == "global_mmlu_full_x/x/test/0"
    )
