//! A pair of keys for rows with tokens, made once for all runs. It knows files and PEM, not who signs or checks.

use anyhow::{Context, Result};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{cell::OnceCell, fs};
use tempfile::TempDir;

const PRIVATE: &str = "private.pem";
const PUBLIC: &str = "public.pem";

/// The pair, once somebody asks for it; its files go with it.
#[derive(Default)]
pub(crate) struct Keys(OnceCell<TempDir>);

impl Keys {
    /// An argument with the names of files for `{private-key}` and `{public-key}`.
    pub(crate) fn fill(&self, argument: &str) -> Result<String> {
        if !argument.contains("-key}") {
            return Ok(argument.to_owned());
        }
        let folder = match self.0.get() {
            Some(folder) => folder,
            None => {
                let made = make().context("making a pair of keys")?;
                self.0.get_or_init(|| made)
            }
        };
        let file = |name: &str| folder.path().join(name).display().to_string();
        Ok(argument.replace("{private-key}", &file(PRIVATE)).replace("{public-key}", &file(PUBLIC)))
    }
}

/// The usual size of keys that sign tokens.
fn make() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("tidings-keys-").tempdir()?;
    let pair = KeyPair::generate(KeySize::Rsa2048)?;
    let private: Pkcs8V1Der<'_> = pair.as_der()?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
    fs::write(folder.path().join(PRIVATE), pem("PRIVATE KEY", private.as_ref()))?;
    fs::write(folder.path().join(PUBLIC), pem("PUBLIC KEY", public.as_ref()))?;
    Ok(folder)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
