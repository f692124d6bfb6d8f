//! A small configuration that works, all in one file. The unit tests of `config` have it too, by
//! its path.

use std::path::Path;

pub const SETTINGS: &str = r#"
[queue]
url = "sqlite:longshore.db"
[ledger]
url = "sqlite:longshore.db"
[claims]
url = "sqlite:longshore.db"
[keys]
pseudonyms = "${env:PSEUDONYMS}"
"#;

pub const ORDERS: &str = r#"
source = { connection = "shop", table = "orders" }
sink   = { connection = "lake", path = "orders" }
"#;

/// Writes a file below `folder`, from its first line with text on.
pub fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text.trim_start()).unwrap();
}
