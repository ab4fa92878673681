"""Programs that models write: run without trust, and scored by the tests of HumanEval and MBPP."""
