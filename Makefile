# scwarp: `make demo` builds the program and runs the main job, `make test` builds and runs everything that is checked.
# Both install what they need (Debian packages as root, Python packages into build/), or say what is missing.

.PHONY: help demo test bench bench-scanpy format docs stubs clean
help:
	@echo "make demo [INPUT=file]   the main job on your file, or on simulated cells; says where the result is"
	@echo "make test                quality gates, C++ and Python tests, sanitizers, install check"
	@echo "make bench               micro benchmarks"
	@echo "make bench-scanpy        the main job step by step beside scanpy (N=20000 cells by default)"
	@echo "make format              clang-format and ruff over the tree"
	@echo "make docs                the support table of docs/support.md from the kernel registry"

demo:
	@tools/demo "$(INPUT)"

test:
	@tools/test

bench:
	@tools/bench

bench-scanpy:
	@tools/bench-scanpy $(or $(N),20000)

format: build/venv
	@build/venv/bin/clang-format -i $$(tools/list-sources)
	@build/venv/bin/ruff format -q python tests bench && build/venv/bin/ruff check -q --fix python tests bench

docs:
	@tools/docs

build/venv:
	@tools/install-packages build test && tools/make-venv

clean:
	rm -rf build demo
