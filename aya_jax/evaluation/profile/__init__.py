"""The generation profile of a model: how it writes, how toxic and how biased it is (LLM See, LLM Do, 2407.01490)."""
