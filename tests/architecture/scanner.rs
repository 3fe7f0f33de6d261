//! Source text to tokens, and tokens to the paths that lead into this crate.

/// A path into this crate, from the crate root.
#[derive(Debug, PartialEq, Eq)]
pub struct Used {
    pub line: usize,
    pub target: Vec<String>,
}

/// Every path into this crate that the tokens name, where `module` is the file's own path.
pub fn paths(tokens: &[Token], module: &[String]) -> Vec<Used> {
    let mut used = Vec::new();
    // Inline modules we are inside of: their name and the brace depth of their body.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last().is_some_and(|(_, d)| *d > depth) {
                    inline.pop();
                }
            }
            "mod" if tokens.get(at + 2).is_some_and(|t| t.is("{")) => {
                inline.push((tokens[at + 1].text.clone(), depth + 1));
            }
            _ => {}
        }
        let here: Vec<String> = module
            .iter()
            .cloned()
            .chain(inline.iter().map(|(name, _)| name.clone()))
            .collect();
        if token.is("use") {
            at = use_tree(tokens, at + 1, &[], &here, &mut used);
            continue;
        }
        let continues = at > 0 && tokens[at - 1].is("::") && !is_leading(tokens, at - 1);
        if token.ident().is_some() && !continues {
            let (segments, next) = simple_path(tokens, at);
            // A lone `self` is a value and `pub(crate)` a visibility; only longer ones are paths.
            if segments.len() > 1 {
                record(&segments, token.line, &here, &mut used);
            }
            at = next;
            continue;
        }
        at += 1;
    }
    used
}

/// Whether the `::` at `at` begins a path (`::linkmic::…`) instead of continuing one.
fn is_leading(tokens: &[Token], at: usize) -> bool {
    at == 0 || tokens[at - 1].ident().is_none() && !tokens[at - 1].is(">")
}

fn simple_path(tokens: &[Token], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = vec![tokens[at].text.clone()];
    while tokens.get(at + 1).is_some_and(|t| t.is("::"))
        && tokens.get(at + 2).is_some_and(|t| t.ident().is_some())
    {
        at += 2;
        segments.push(tokens[at].text.clone());
    }
    (segments, at + 1)
}

/// Reads one use tree beginning at `at`; returns the index after it.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    here: &[String],
    used: &mut Vec<Used>,
) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| !t.is("}")) {
                    at = use_tree(tokens, at, &path, here, used);
                    if tokens.get(at).is_some_and(|t| t.is(",")) {
                        at += 1;
                    }
                }
                return at + 1;
            }
            // A glob names what it is applied to.
            "*" => {
                at += 1;
                break;
            }
            "as" => {
                at += 2;
                break;
            }
            _ if token.ident().is_some() => {
                // `relay::{self}` names `relay`.
                if !token.is("self") || path.is_empty() {
                    path.push(token.text.clone());
                }
                at += 1;
            }
            _ => break,
        }
    }
    record(&path, line, here, used);
    // Leave the separator of an enclosing group alone; step over the semicolon of the statement.
    at + usize::from(tokens.get(at).is_some_and(|t| t.is(";")))
}

/// Resolves `segments`, written in module `here`, and keeps it when it leads into this crate.
fn record(segments: &[String], line: usize, here: &[String], used: &mut Vec<Used>) {
    let Some(first) = segments.first() else {
        return;
    };
    let mut base = match first.as_str() {
        "crate" | "linkmic" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return,
    };
    let mut rest = segments;
    while let Some((head, tail)) = rest.split_first() {
        match head.as_str() {
            "super" => {
                base.pop();
            }
            "crate" | "linkmic" | "self" if rest.len() == segments.len() => {}
            _ => break,
        }
        rest = tail;
    }
    base.extend(rest.iter().cloned());
    used.push(Used { line, target: base });
}

/// An identifier, `::`, or a single other character; literals and comments are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub fn ident(&self) -> Option<&str> {
        let first = self.text.chars().next()?;
        (first.is_alphabetic() || first == '_').then_some(&self.text)
    }
}

pub fn tokenise(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let c = chars[at];
        let begun = at;
        match c {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (peek(at), peek(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => at = after_string(&chars, at),
            // A character literal, or else a lifetime: 'a' against 'a.
            '\'' if peek(at + 1) == '\\' => {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' if peek(at + 2) == '\'' => at += 3,
            ':' if peek(at + 1) == ':' => {
                tokens.push(Token {
                    text: "::".into(),
                    line,
                });
                at += 2;
            }
            _ if c.is_alphabetic() || c == '_' => {
                while peek(at).is_alphanumeric() || peek(at) == '_' {
                    at += 1;
                }
                let word: String = chars[begun..at].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                if raw && (peek(at) == '"' || peek(at) == '#' && is_raw_string(&chars, at)) {
                    at = after_raw_string(&chars, at);
                } else if word == "r" && peek(at) == '#' {
                    // A raw identifier: the name follows as a word of its own.
                    at += 1;
                } else if !(matches!(word.as_str(), "b" | "c") && matches!(peek(at), '"' | '\'')) {
                    tokens.push(Token { text: word, line });
                }
            }
            // Numbers swallow their suffix (`1_u64`, `0xff`), which would look like a name.
            _ if c.is_ascii_digit() => {
                while peek(at).is_alphanumeric() || peek(at) == '_' {
                    at += 1;
                }
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push(Token {
                        text: c.to_string(),
                        line,
                    });
                }
                at += 1;
            }
        }
        line += chars[begun..at.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    tokens
}

fn after_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn is_raw_string(chars: &[char], at: usize) -> bool {
    chars[at..].iter().find(|c| **c != '#') == Some(&'"')
}

fn after_raw_string(chars: &[char], mut at: usize) -> usize {
    let begun = at;
    while chars.get(at) == Some(&'#') {
        at += 1;
    }
    let hashes = at - begun;
    at += 1;
    while at < chars.len() {
        let closes = chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}
