//! Selkie.

fn main() -> std::process::ExitCode {
    selkie_server::cli::main()
}
