//! The API's token: taken from where the configuration says, or made at the first start and kept.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::source::{Env, SERVICE_STATE, state_dir};
use super::{Config, TokenSource};
use crate::auth::{Secret, digest};

/// The file a generated token is kept in, within `state.dir`.
const FILE: &str = "control.token";
/// 256 bits, twice as many hexadecimal digits.
const TOKEN_BYTES: usize = 32;

/// The API's token, and where an operator can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What clients send.
    pub secret: Secret,
    /// The file it stands in; `None` when it came in the configuration. The path may be printed, the token not.
    pub path: Option<PathBuf>,
    /// Whether it was generated just now.
    pub created: bool,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the control token from {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is empty; write a token into it, or delete it to have one generated",
        path.display()
    )]
    Empty { path: PathBuf },
    #[error(
        "cannot keep a generated control token in {}: {source}; set state.dir to a directory \
         that can be written, or control.token_file",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
    #[error("no random bytes from the system for a control token: {0}")]
    Random(getrandom::Error),
}

impl Config {
    /// Fetches the API's token. Without one in the configuration, the one in `state.dir/control.token` is used, and
    /// made there (64 hexadecimal digits, mode 0600) if there is none yet. Reads and writes files.
    ///
    /// # Errors
    /// When the file cannot be read or made, or is empty.
    pub fn control_token(&self) -> Result<Token, TokenError> {
        match &self.control.token {
            TokenSource::Given(secret) => Ok(Token {
                secret: secret.clone(),
                path: None,
                created: false,
            }),
            TokenSource::File(path) => kept(path),
            TokenSource::Generated => generated(&self.state.dir),
        }
    }

    /// As [`Self::control_token`], for who calls a server: none is made, and no file is touched but for reading. Where
    /// nobody has named a state directory, and the one that `env` suggests has no token, it is that of the service that
    /// the package installs (`/var/lib/linkmic/control.token`): its callers have another environment than it has.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn known_control_token(&self, env: &Env) -> Result<Token, TokenError> {
        match &self.control.token {
            TokenSource::Generated => {
                let is_named = self.state.dir != state_dir(env);
                known(&self.state.dir, is_named, Path::new(SERVICE_STATE))
            }
            TokenSource::Given(_) | TokenSource::File(_) => self.control_token(),
        }
    }
}

fn known(dir: &Path, is_named: bool, service: &Path) -> Result<Token, TokenError> {
    let own = kept(&dir.join(FILE));
    if is_named || !own.as_ref().is_err_and(is_absent) {
        return own;
    }
    match kept(&service.join(FILE)) {
        Err(error) if is_absent(&error) => own,
        found => found,
    }
}

fn is_absent(error: &TokenError) -> bool {
    matches!(error, TokenError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn generated(dir: &Path) -> Result<Token, TokenError> {
    let path = dir.join(FILE);
    let failed = |source| TokenError::Write {
        path: path.clone(),
        source,
    };
    if path.try_exists().map_err(failed)? {
        // An older or restored file may be readable by others; it is ours, so it is closed again.
        close(&path).map_err(failed)?;
        return kept(&path);
    }
    let text = random_text()?;
    match create(dir, &path, &text) {
        Ok(()) => Ok(Token {
            secret: Secret::new(text),
            path: Some(path),
            created: true,
        }),
        // Another process was faster; its token holds.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => kept(&path),
        Err(error) => Err(failed(error)),
    }
}

fn kept(path: &Path) -> Result<Token, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::Read {
        path: path.to_owned(),
        source,
    })?;
    match text.trim() {
        "" => Err(TokenError::Empty {
            path: path.to_owned(),
        }),
        text => Ok(Token {
            secret: Secret::new(text),
            path: Some(path.to_owned()),
            created: false,
        }),
    }
}

/// Written beside and linked into place, so that nobody ever reads half a token or none.
fn create(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let draft = dir.join(format!("{FILE}.{}", std::process::id()));
    // Left behind by a process of the same id that died here.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write(&draft, text).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    written
}

fn write(draft: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn close(path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    permissions.set_mode(0o600);
    fs::set_permissions(path, permissions)
}

fn random_text() -> Result<String, TokenError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    Ok(digest::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, token: TokenSource) -> Config {
        let mut config = Config::default();
        config.state.dir = dir.join("state/linkmic");
        config.control.token = token;
        config
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn without_a_token_one_is_generated_for_the_owner_only_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), TokenSource::Generated);
        let first = config.control_token().unwrap();
        let path = first.path.clone().unwrap();
        assert_eq!(path, config.state.dir.join("control.token"));
        assert!(first.created);
        assert_eq!((mode(&path), mode(&config.state.dir)), (0o600, 0o700));
        let text = first.secret.expose();
        assert_eq!(text.len(), 64);
        assert!(text.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(
            fs::read_dir(&config.state.dir).unwrap().count(),
            1,
            "nothing but the token is left"
        );

        let second = config.control_token().unwrap();
        assert_eq!(
            (second.secret, second.created),
            (first.secret.clone(), false)
        );
        assert!(!format!("{first:?}").contains(first.secret.expose()));
    }

    #[test]
    fn two_generated_tokens_differ() {
        assert_ne!(random_text().unwrap(), random_text().unwrap());
    }

    #[test]
    fn a_kept_token_that_others_could_read_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), TokenSource::Generated);
        let path = config.control_token().unwrap().path.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        config.control_token().unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_token_made_by_another_process_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "theirs\n").unwrap();
        let error = create(dir.path(), &path, "ours").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs\n");
    }

    #[test]
    fn a_token_file_is_read_without_its_line_end_and_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let config = config(dir.path(), TokenSource::File(path.clone()));
        let error = config.control_token().unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read the control token from /"),
            "{error}"
        );
        fs::write(&path, " \n").unwrap();
        let error = config.control_token().unwrap_err().to_string();
        assert!(error.contains("is empty"), "{error}");
        fs::write(&path, "sesame-sesame-sesame\n").unwrap();
        let token = config.control_token().unwrap();
        assert!(token.secret.matches(b"sesame-sesame-sesame"));
        assert_eq!(token.path, Some(path));
    }

    #[test]
    fn callers_find_the_services_token_where_their_own_directory_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let (own, service) = (dir.path().join("own"), dir.path().join("service"));
        let put = |dir: &Path, text: &str| {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join(FILE), text).unwrap();
        };
        let found = |is_named| known(&own, is_named, &service);
        let path = |result: Result<Token, TokenError>| result.unwrap().path.unwrap();

        // Nowhere: the first place is told.
        let error = found(false).unwrap_err().to_string();
        assert!(error.contains("/own/control.token"), "{error}");
        put(&service, "theirs\n");
        assert_eq!(path(found(false)), service.join(FILE));
        // Who names a directory means that one.
        assert!(found(true).is_err_and(|error| is_absent(&error)));
        // One that is there and of no use is told, and not passed over.
        put(&own, "\n");
        assert!(matches!(found(false), Err(TokenError::Empty { .. })));
        put(&own, "ours\n");
        assert_eq!(path(found(false)), own.join(FILE));
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state"), "a file").unwrap();
        let config = config(dir.path(), TokenSource::Generated);
        let error = config.control_token().unwrap_err().to_string();
        assert!(error.contains("state/linkmic/control.token"), "{error}");
        assert!(error.contains("set state.dir"), "{error}");
    }
}
