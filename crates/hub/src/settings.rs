//! Where the hub is, where the cache is, and who asks.

use std::path::{Path, PathBuf};

use crate::error::{HubError, Result};

/// Hub that is asked where HF_ENDPOINT names no other.
const ENDPOINT: &str = "https://huggingface.co";

/// How to reach the hub; see [`Self::from_env`].
#[derive(Clone)]
pub struct HubSettings {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Folder that holds `models--org--name` folders.
    pub cache: PathBuf,
    /// Sent to the hub as who asks.
    pub token: Option<String>,
    /// Use the cache alone.
    pub offline: bool,
    /// Give up where nothing came for so many seconds.
    pub stall_seconds: u64,
}

impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token: settings end up in logs.
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// From the variables of the environment that the hub's own tools read: `HF_ENDPOINT`;
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `huggingface` of `XDG_CACHE_HOME` or of
    /// `~/.cache`; `HF_TOKEN`, else the file `HF_TOKEN_PATH` or `token` in `HF_HOME`;
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`HubError::Setting`] for a value that means nothing, or where there is no home folder.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        let home = || match (var("HF_HOME"), var("XDG_CACHE_HOME"), var("HOME")) {
            (Some(home), ..) => Ok(PathBuf::from(home)),
            (_, Some(cache), _) => Ok(Path::new(&cache).join("huggingface")),
            (.., Some(home)) => Ok(Path::new(&home).join(".cache/huggingface")),
            _ => Err(HubError::Setting {
                variable: "HF_HOME",
                message: "is not set, and neither is HOME; set it to the folder for downloads"
                    .into(),
            }),
        };
        let cache = match var("HF_HUB_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => home()?.join("hub"),
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|s| endpoint.strip_prefix(s));
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains(char::is_whitespace)) {
            return Err(HubError::Setting {
                variable: "HF_ENDPOINT",
                message: format!("{endpoint:?} is no address; it begins with https://"),
            });
        }
        let token = var("HF_TOKEN").or_else(|| {
            let path = var("HF_TOKEN_PATH").map(PathBuf::from);
            let path = path.or_else(|| Some(home().ok()?.join("token")));
            std::fs::read_to_string(path?).ok()
        });
        let token = token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        if token
            .as_ref()
            .is_some_and(|t| !t.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(HubError::Setting {
                variable: "HF_TOKEN",
                message: "has characters that no token has; set it to the token alone".into(),
            });
        }
        Ok(Self {
            endpoint,
            cache,
            token,
            offline: var("HF_HUB_OFFLINE").is_some_and(|v| is_true(&v)),
            stall_seconds: 60,
        })
    }
}

fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<HubSettings> {
        HubSettings::from_vars(|name| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_of_the_hub_are_honoured() {
        let plain = settings(&[("HOME", "/h")]).unwrap();
        assert_eq!(plain.cache, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!((plain.endpoint.as_str(), plain.offline), (ENDPOINT, false));
        assert_eq!(plain.token, None);
        let cache = |vars: &[(&str, &str)]| settings(vars).unwrap().cache;
        assert_eq!(
            cache(&[("HF_HOME", "/x"), ("HOME", "/h")]),
            Path::new("/x/hub")
        );
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/c")]),
            Path::new("/c/huggingface/hub")
        );
        assert_eq!(
            cache(&[("HF_HUB_CACHE", "/y"), ("HF_HOME", "/x")]),
            Path::new("/y")
        );
        let all = [
            ("HF_HOME", "/x"),
            ("HF_ENDPOINT", "http://127.0.0.1:1/"),
            ("HF_TOKEN", " hf_secret\n"),
            ("HF_HUB_OFFLINE", "1"),
        ];
        let all = settings(&all).unwrap();
        assert_eq!(all.endpoint, "http://127.0.0.1:1");
        assert_eq!(all.token.as_deref(), Some("hf_secret"));
        assert!(all.offline);
        assert!(!format!("{all:?}").contains("secret"));
        assert!(
            !settings(&[("HF_HOME", "/x"), ("HF_HUB_OFFLINE", "0")])
                .unwrap()
                .offline
        );
    }

    #[test]
    fn the_token_of_a_login_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(
            settings(&[("HF_HOME", home)]).unwrap().token.as_deref(),
            Some("hf_file")
        );
        // The variables come before it, the token itself first.
        let other = dir.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let mut vars = vec![
            ("HF_HOME", home),
            ("HF_TOKEN_PATH", other.to_str().unwrap()),
        ];
        assert_eq!(settings(&vars).unwrap().token.as_deref(), Some("hf_other"));
        vars.push(("HF_TOKEN", "hf_env"));
        assert_eq!(settings(&vars).unwrap().token.as_deref(), Some("hf_env"));
        assert_eq!(settings(&[("HF_HOME", "/none")]).unwrap().token, None);
    }

    #[test]
    fn offline_is_said_as_the_tools_of_the_hub_take_it() {
        for (value, offline) in [
            ("1", true),
            ("ON", true),
            ("yes", true),
            ("True", true),
            ("0", false),
            ("", false),
            ("no", false),
        ] {
            let found = settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(found.offline, offline, "{value:?}");
        }
    }

    #[test]
    fn values_without_a_meaning_are_named() {
        for (vars, word) in [
            (vec![], "HF_HOME"),
            (
                vec![("HOME", "/h"), ("HF_ENDPOINT", "huggingface.co")],
                "HF_ENDPOINT",
            ),
            (
                vec![("HOME", "/h"), ("HF_ENDPOINT", "https://")],
                "HF_ENDPOINT",
            ),
            (vec![("HOME", "/h"), ("HF_TOKEN", "a\r\nX: b")], "HF_TOKEN"),
        ] {
            let error = settings(&vars).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
