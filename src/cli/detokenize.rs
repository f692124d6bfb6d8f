//! `longshore detokenize`

use std::io::Read;

use clap::Args;
use serde_json::json;

use super::output::counted;
use super::{Context, Ended, Verdict, told};
use crate::error::{Error, Result};
use crate::job::changes::Audit;
use crate::protect::{PSEUDONYMS, Tokens};
use crate::wiring;

const DOING: &str = "turn tokens back";
/// How many tokens are turned back at once.
const MOST: usize = 10_000;
/// How many bytes a token may have.
const LONGEST: usize = 64 << 10;
/// How many bytes are read from standard input.
const INPUT: u64 = 64 << 20;

/// Turn tokens of `tokenize` back into their values
///
/// The audit trail is told of it first: how many tokens, by whom and why. Exit 1 where one is not of
/// this installation, that is, not made with `[keys] pseudonyms` of longshore.toml.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  longshore detokenize tok_y2x8… --reason 'ticket 4711: whose order is it?'
  cut -d, -f2 reply.csv | longshore detokenize - --json --reason 'bounced letters'")]
pub struct Detokenize {
    /// The tokens; `-` reads them from standard input, one a line
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
    /// Why the values are looked at, for the audit trail
    #[arg(long)]
    reason: String,
}

impl Detokenize {
    pub async fn run(self, context: &Context) -> Ended {
        let config = context.config(false)?;
        let key = config.settings.keys.get(PSEUDONYMS).ok_or_else(|| {
            Error::config(DOING, "longshore.toml has no key for pseudonyms")
                .help("Set `pseudonyms` under [keys] to the key that the tokens were made with.")
        })?;
        let tokens = Tokens::new(&key.read().await?)?;
        // Apart from here, so that it can be interrupted.
        let reading =
            tokio::task::spawn_blocking(move || given(self.tokens, std::io::stdin().lock()));
        let asked = reading.await.map_err(|cause| {
            Error::permanent(DOING, "the tokens were not read").caused_by(cause)
        })??;
        let values: Vec<Option<Vec<u8>>> = asked.iter().map(|token| tokens.open(token)).collect();
        let ledger = wiring::existing_ledger(&config.settings).await?;
        // Before anything is shown: what cannot be written down is not looked at.
        ledger
            .audit(Audit {
                by: context.by(),
                action: format!("detokenize {}", counted(asked.len() as u64, "token")),
                subject: "tokens".to_owned(),
                reason: self.reason,
            })
            .await?;
        let mut rows = Vec::new();
        let mut strangers = Vec::new();
        for (index, (token, value)) in asked.into_iter().zip(values).enumerate() {
            let Some(value) = value else {
                strangers.push(index + 1);
                continue;
            };
            match (String::from_utf8(value), context.out.json) {
                (Ok(value), true) => {
                    context.out.object(&json!({"token": token, "value": value}))?;
                }
                (Err(bytes), true) => {
                    let hex = hex::encode(bytes.as_bytes());
                    context.out.object(&json!({"token": token, "bytes": hex}))?;
                }
                (Ok(value), false) => rows.push(vec![value, token]),
                (Err(bytes), false) => {
                    rows.push(vec![format!("\\x{}", hex::encode(bytes.as_bytes())), token]);
                }
            }
        }
        if !rows.is_empty() {
            context.out.table(&["VALUE", "TOKEN"], rows)?;
        }
        if strangers.is_empty() {
            return Ok(Verdict::Done);
        }
        for position in strangers {
            told(&format!("error: token {position} is not of this installation\n"));
        }
        told("help: It was cut or changed, or made with another key for pseudonyms.\n");
        Ok(Verdict::Found)
    }
}

/// The tokens that are named, and where `-` stands those that `input` has.
fn given(named: Vec<String>, input: impl Read) -> Result<Vec<String>> {
    let mut input = Some(input);
    let mut tokens = Vec::new();
    for one in named {
        match input.take_if(|_| one == "-") {
            Some(input) => {
                let mut text = String::new();
                let read = input.take(INPUT + 1).read_to_string(&mut text);
                if read.as_ref().is_ok_and(|bytes| *bytes as u64 > INPUT) {
                    return Err(too_many());
                }
                read.map_err(|cause| {
                    Error::usage(DOING, "standard input is no text").caused_by(cause)
                })?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                tokens.extend(lines.map(str::to_owned));
            }
            None => tokens.push(one),
        }
    }
    if tokens.len() > MOST {
        return Err(too_many());
    }
    if let Some(at) = tokens.iter().position(|token| token.len() > LONGEST) {
        return Err(Error::usage(DOING, format!("token {} has more than {LONGEST} bytes", at + 1)));
    }
    if tokens.is_empty() {
        return Err(Error::usage(DOING, "there is no token on standard input"));
    }
    Ok(tokens)
}

fn too_many() -> Error {
    Error::usage(DOING, format!("there are more than {MOST} tokens"))
        .help("Give them in several parts.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_named_or_read_and_never_too_many() {
        let given = |named: &[&str], input: &str| {
            super::given(named.iter().map(ToString::to_string).collect(), input.as_bytes())
        };
        assert_eq!(given(&["a", "-", "b"], "c\r\n\n d \n").unwrap(), ["a", "c", "d", "b"]);
        assert_eq!(given(&["a"], "c").unwrap(), ["a"]);
        for (named, input, said) in [
            (&["-"][..], "\n".to_owned(), "no token"),
            (&["-"], "x\n".repeat(MOST + 1), "more than 10000 tokens"),
            (&["a", "-"], "x".repeat(LONGEST + 1), "token 2 has more than 65536 bytes"),
        ] {
            let error = given(named, &input).unwrap_err();
            assert!(error.message().contains(said), "{error}");
        }
        let endless = super::given(vec!["-".to_owned()], std::io::repeat(b'x')).unwrap_err();
        assert!(endless.message().contains("more than"), "{endless}");
    }
}
