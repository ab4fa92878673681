"""Installs aya_jax. Every exact version is in constraints.txt: `pip install -c constraints.txt -e .[dev]`."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "jax>=0.10.2,<0.12",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8,<1",
    "gin-config==0.5.0",
    "ml-collections>=1.1",
    "grain>=0.2.18",
    "tensorstore>=0.1.80",
    "seqio>=0.0.20",
    "tensorflow-datasets>=4.9.10",
    "tokenizers>=0.23",
    "sentencepiece>=0.2.1,!=0.2.3",  # 0.2.3 wants protobuf 7, Apache Beam less than 7
    "safetensors>=0.8",
    "xxhash>=3.5",
    "pyarrow>=20",
    "zstandard>=0.25",
    "rich>=15",
    "tensorboardX>=2.6",
    "matplotlib>=3.10",
    "jinja2>=3.1",
    "pyyaml>=6",
    "scipy>=1.17",
]

EXTRAS = {
    "gpu": ["jax[cuda12]"],
    "tpu": ["jax[tpu]"],
    "hf": ["datasets>=5"],
    "beam": ["apache-beam>=2.77"],
    "wandb": ["wandb"],
    "quantization": ["qwix>=0.1.8"],
    "remote": ["httpx>=0.28"],
    "merge": ["optuna>=5"],
    "synthesis": ["py3langid>=0.4"],
    "eval": ["lm_eval>=0.4.13,<0.5", "sacrebleu>=2.6", "rouge-score>=0.1.2", "datasets>=5"],
    "serve": ["fastapi>=0.120", "uvicorn>=0.38", "prometheus-client>=0.23"],
    "dev": [
        "pytest>=9",
        "pytest-xdist>=3.8",
        "hypothesis>=6.170",
        "ruff>=0.17",
        "import-linter>=2.16",
        "datasets>=5",
        "apache-beam>=2.77",
        "qwix>=0.1.8",
        "httpx>=0.28",
        "fastapi>=0.120",
        "uvicorn>=0.38",
        "prometheus-client>=0.23",
        "openai>=2",
        "py3langid>=0.4",
        "optuna>=5",
        "lm_eval>=0.4.13,<0.5",
        "sacrebleu>=2.6",
        "rouge-score>=0.1.2",
    ],
}

setup(
    name="aya_jax",
    version="0.1.0",
    description="Pre-train, tune, align, merge and judge multilingual language models in JAX, from gin files",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["aya_jax", "aya_jax.*"]),
    package_data={"aya_jax": ["data/samples/**/*", "studies/templates/*", "evaluation/code/confined/*"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["aya = aya_jax.cli:main"]},
)
