# make demo   builds everything, makes one private prediction and serves the page
# make test   everything that must hold: formatting, lints, docs, every build, all tests, the browser's included
#
# Both do all their own set-up on a Debian-like machine with make, rustup, Node (20 or newer) and a C compiler.

CARGO ?= cargo
NPM ?= npm
# One set of packages and features, so that demo, lints and tests share one build of every library. The glue generator, with
# libraries of its own, stands apart.
MEMBERS := --locked --workspace --exclude selkie-wasm-pack --features selkie-server/page,selkie-wasm/all-roles
SELKIE := $(or $(CARGO_TARGET_DIR),target)/debug/selkie

.PHONY: demo test check toolchain page wasm-no-std selkie rust-tests package-tests browser-tests chromium clean

demo: selkie
	$(SELKIE) demo $(if $(PORT),--port $(PORT))

test: check wasm-no-std page rust-tests package-tests browser-tests
	@echo "make test: everything holds"

# rust-toolchain.toml names the compiler and its targets. rustup fetches a missing compiler by itself, but not the targets of
# one that it already has.
toolchain:
	@lib=$$(rustc --print sysroot)/lib/rustlib; test -d $$lib/wasm32-unknown-unknown -a -d $$lib/thumbv7em-none-eabi || \
	rustup toolchain install

# The page and the npm package, with the WebAssembly that they need.
page: toolchain web/node_modules
	cd web && $(NPM) run --silent build

web/node_modules: web/package.json web/package-lock.json
	cd web && $(NPM) ci --silent --no-audit --no-fund
	@touch web/node_modules

selkie: page
	$(CARGO) build $(MEMBERS)

check: web/node_modules
	$(CARGO) fmt --all -- --check

# core must build where there is no standard library.
wasm-no-std: toolchain
	$(CARGO) build --locked -p selkie --no-default-features --target thumbv7em-none-eabi

# The process tests run the binary that the demo runs.
rust-tests: selkie
	$(CARGO) clippy $(MEMBERS) --all-targets -- -D warnings
	$(CARGO) clippy --locked -p selkie-wasm-pack -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	$(CARGO) test $(MEMBERS)

package-tests: page
	cd web && $(NPM) run --silent check && $(NPM) test --silent

browser-tests: selkie chromium
	node tests/browser/run.mjs $(SELKIE)

# Chromium comes from Debian's packages where it is missing.
chromium:
	@command -v chromium >/dev/null 2>&1 || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && apt-get update -qq && apt-get install -y -qq chromium; } || \
	{ echo "make test: the browser's tests need Chromium; install it (on Debian: sudo apt-get install chromium) and run this again" >&2; exit 1; }

clean:
	$(CARGO) clean
	rm -rf web/node_modules web/dist web/pkg web/wasm
