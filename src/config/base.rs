//! What the parts of a configuration have from the whole: where relative paths begin (in the folder
//! that the configuration's own folder stands in, wherever the program was started), and the vault that
//! secrets are read from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::settings::{Backing, Settings};
use crate::connect::Connection;
use crate::secret::Secret;
use crate::secret::vault::VaultServer;

/// What the parts of a configuration have from the whole.
pub(super) struct Base {
    /// The folder that relative paths begin in; empty where that is the working directory.
    folder: PathBuf,
    vault: Option<Arc<VaultServer>>,
}

impl Base {
    /// Of the configuration in `dir`.
    pub fn of(dir: &Path) -> Base {
        // `.` and `..` have no name of their own to take away.
        let whole = match dir.file_name() {
            Some(_) => dir.to_owned(),
            None => dir.canonicalize().unwrap_or_default(),
        };
        let folder = whole.parent().map(Path::to_owned).unwrap_or_default();
        Base { folder, vault: None }
    }

    /// Gives the settings what they have from here, and takes from them what others have.
    pub fn settle(&mut self, settings: &mut Settings) {
        if let Some(vault) = &mut settings.vault {
            self.secret(Some(&mut vault.token));
            self.ca(&mut vault.ca);
            self.vault = Some(Arc::new(VaultServer::new(vault.clone())));
        }
        let passwords = match &mut settings.backing {
            Backing::Embedded { path } => {
                *path = self.folder.join(&*path);
                Vec::new()
            }
            Backing::Servers { amqp, postgres, redis } => {
                [amqp, postgres, redis].map(|server| &mut server.password).into()
            }
        };
        let notify = settings.notify.as_mut().map(|notify| &mut notify.secret);
        for secret in passwords.into_iter().chain(notify) {
            self.secret(secret.as_mut());
        }
        for secret in settings.keys.values_mut() {
            self.secret(Some(secret));
        }
        self.secret(settings.quarantine.as_mut().map(|quarantine| &mut quarantine.key));
    }

    /// Gives a connection what it has from here.
    pub fn connection(&self, connection: &mut Connection) {
        if let Some(folder) = connection.url.strip_prefix("file:") {
            // The address is percent-encoded, and this machine's names are not.
            let base = self.folder.to_string_lossy().replace('%', "%25");
            connection.url = format!("file:{}", beneath(&base, folder));
        } else if let Some(file) = connection.url.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file);
            connection.url = format!("sqlite:{}", beneath(&self.folder.to_string_lossy(), file));
        }
        self.ca(&mut connection.ca);
        for secret in
            [&mut connection.password, &mut connection.access_key, &mut connection.secret_key]
        {
            self.secret(secret.as_mut());
        }
    }

    fn ca(&self, ca: &mut Option<String>) {
        if let Some(ca) = ca {
            *ca = beneath(&self.folder.to_string_lossy(), ca);
        }
    }

    fn secret(&self, secret: Option<&mut Secret>) {
        match (secret, &self.vault) {
            (Some(Secret::File(path)), _) => *path = beneath(&self.folder.to_string_lossy(), path),
            (Some(Secret::Vault(one)), Some(vault)) => one.kept_by(vault),
            _ => {}
        }
    }
}

/// The path beneath `base`, unless it is absolute, or there is nothing to put before it.
fn beneath(base: &str, path: &str) -> String {
    if path.starts_with('/') || path.is_empty() || base.is_empty() {
        return path.to_owned();
    }
    format!("{}/{path}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_beside_the_folder_of_the_configuration() {
        for (dir, base) in [
            ("config", ""),
            ("out/config", "out"),
            ("out/config/", "out"),
            ("/etc/longshore", "/etc"),
            ("../mine", ".."),
        ] {
            assert_eq!(Base::of(Path::new(dir)).folder, Path::new(base), "{dir}");
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(Base::of(Path::new(".")).folder, here.parent().unwrap());
        assert_eq!(Base::of(Path::new("..")).folder, here.parent().unwrap().parent().unwrap());
    }

    #[test]
    fn only_relative_paths_are_moved() {
        let moved = |base: &str, url: &str| {
            let text = serde_json::json!({
                "type": "files", "url": url, "ca": "ca.pem",
                "secret-key": "${file:key}", "access-key": "${env:KEY}",
            });
            let mut connection: Connection = serde_json::from_value(text).unwrap();
            Base { folder: base.into(), vault: None }.connection(&mut connection);
            let secret = connection.secret_key.unwrap().to_string();
            assert!(secret.ends_with("key}") && secret.contains(base), "{secret}");
            assert_eq!(connection.access_key.unwrap().to_string(), "${env:KEY}");
            assert_eq!(connection.ca, Some(beneath(base, "ca.pem")));
            connection.url
        };
        for (base, url, expected) in [
            ("", "file:lake", "file:lake"),
            ("out", "file:lake", "file:out/lake"),
            ("/50% off", "file:a%20b", "file:/50%25 off/a%20b"),
            ("/", "file:lake", "file:/lake"),
            ("out", "file:///srv/lake", "file:///srv/lake"),
            ("out", "file:/srv/lake", "file:/srv/lake"),
            ("/x", "sqlite:shop.db", "sqlite:/x/shop.db"),
            ("/x", "sqlite://shop.db", "sqlite:/x/shop.db"),
            ("/x", "sqlite:///srv/shop.db", "sqlite:/srv/shop.db"),
            ("/x", "s3://bucket/folder", "s3://bucket/folder"),
            ("/x", "postgres://h/d", "postgres://h/d"),
        ] {
            assert_eq!(moved(base, url), expected);
        }
    }
}
