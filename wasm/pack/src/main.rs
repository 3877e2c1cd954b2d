//! `selkie-wasm-pack IN.wasm OUT_DIR`: the JavaScript glue of a built module.
//!
//! It does what the `wasm-bindgen` command line does, from the library behind it: the version is then pinned by
//! `Cargo.lock`, next to `wasm-bindgen` itself, and nobody installs a tool by hand whose schema might not match.
//! `OUT_DIR` receives `selkie.js` (an ES module), `selkie_bg.wasm` and their types.

use std::{env, path::PathBuf, process::ExitCode};

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(out_dir), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: selkie-wasm-pack IN.wasm OUT_DIR");
        return ExitCode::from(2);
    };
    let glue = || {
        Bindgen::new()
            .input_path(&input)
            .out_name("selkie")
            .web(true)?
            .typescript(true)
            // The glue must not name a file of its own: our loader picks the build and passes it in. With a default
            // path, bundlers would ship that file a second time.
            .omit_default_module_path(true)
            .remove_producers_section(true)
            .generate(&out_dir)
    };
    match glue() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selkie-wasm-pack: {}: {error:#}", input.display());
            ExitCode::FAILURE
        }
    }
}
