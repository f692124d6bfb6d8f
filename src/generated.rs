//! Pages of the documentation that are generated from the code, for the tests that hold them equal.

/// Fails where the committed file (a path in the repository) is not what the code says. With
/// `LONGSHORE_REGENERATE` it is written anew, as `make reference` does.
pub fn expect_committed(name: &str, text: &str) {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let regenerate = std::env::var_os("LONGSHORE_REGENERATE").is_some();
    if regenerate {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{path} is out of date: run `make reference`");
}
