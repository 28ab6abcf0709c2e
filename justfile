# One recipe for each thing a developer does. `just` lists them; `.ci/run` is the whole check on a fresh environment.

python := env("PYTHON", "python3")
venv := ".venv"
bin := venv / "bin"

# List the recipes.
default:
    @just --list

# A virtual environment with the package (editable), the test and the developer extras.
setup:
    {{ python }} -m venv {{ venv }}
    {{ bin }}/pip install -e '.[test,dev]'
    {{ bin }}/pre-commit install

# Rebuild the native module in place, incrementally.
build:
    PATH="$PWD/{{ bin }}:$PATH" tools/devbuild

# The default suite (under 5 minutes on 2 cores); arguments go to pytest.
test *arguments:
    {{ bin }}/pytest {{ arguments }}

# The slow suite: real models, 100,000 mutations and more.
slow *arguments:
    {{ bin }}/pytest -m slow {{ arguments }}

# Agreement with transformers (torch==2.13.0 is a CPU build).
parity *arguments:
    {{ bin }}/pip install -e '.[test,parity]'
    {{ bin }}/pytest tests/parity -m '' {{ arguments }}

# The report page in headless Chromium (Debian: `apt install chromium`).
browser *arguments:
    {{ bin }}/pip install -e '.[test,browser]'
    {{ bin }}/pytest tests/browser {{ arguments }}

# Everything that reads the source without running it.
lint:
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .

# Rewrite the source in the one format.
format:
    {{ bin }}/ruff check --fix .
    {{ bin }}/ruff format .

# mypy --strict on the package.
types:
    {{ bin }}/mypy

# Regenerate the pages that are made from the code.
docs:
    {{ bin }}/python tools/gen_docs.py

# Rewrite the type stub of the native module, after a change of native/bind/.
stub: build
    PATH="$PWD/{{ bin }}:$PATH" {{ bin }}/python tools/gen_stub.py

# Side by side with llama.cpp in one run; see bench/README.md.
bench *arguments:
    {{ bin }}/python bench/peers.py {{ arguments }}

# Cross compile the kernels for aarch64 and run their tests under qemu.
neon:
    tools/kernel-test neon

# The kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer.
asan:
    tools/kernel-test address,undefined

# The kernel tests under UndefinedBehaviorSanitizer alone (every report ends the run).
ubsan:
    tools/kernel-test undefined

# The kernel tests under ThreadSanitizer.
tsan:
    tools/kernel-test thread

# The whole check, as the continuous integration runs it.
ci:
    .ci/run
