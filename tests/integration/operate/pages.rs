//! Completions complete in a real shell, and man pages are pages to man and to groff.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::run::{PROGRAM, linkmic, texts};
use crate::edge::SOON;

async fn completions(shell: &str) -> String {
    let output = linkmic(&["completions", shell]).await;
    assert!(output.status.success());
    texts(&output).0
}

#[tokio::test]
async fn bash_completes_commands_verbs_and_options() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("linkmic.bash");
    std::fs::write(&file, completions("bash").await).expect("a file");
    for (line, wanted) in [
        ("linkmic do", "doctor"),
        ("linkmic ctl str", "streams"),
        ("linkmic ctl streams sna", "snapshot"),
        ("linkmic ctl mixes put --if-n", "--if-none-match"),
        ("linkmic completions f", "fish"),
    ] {
        // What bash does at the tab key: it calls the function that was registered, with the words so far.
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=\"$*\"; \
             COMP_POINT=${#COMP_LINE}; \
             function=$(complete -p linkmic | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             \"$function\" linkmic \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let run = Command::new("bash")
            .args(["--noprofile", "--norc", "-c", script, "bash"])
            .arg(&file)
            .args(line.split(' '))
            .stdin(Stdio::null())
            .output();
        let output = timeout(SOON, run).await.expect("in time").expect("bash");
        let (said, errors) = texts(&output);
        assert_eq!(said.trim(), wanted, "{line}: {errors}");
    }
}

#[tokio::test]
async fn zsh_and_fish_have_completions_of_every_command() {
    for shell in ["zsh", "fish"] {
        let text = completions(shell).await;
        for word in ["doctor", "completions", "ctl", "top", "preview", "snapshot"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    let output = linkmic(&["completions", "tcsh"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn man_pages_are_written_for_every_command_and_groff_has_nothing_to_say_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("man");
    let output = linkmic(&["man", &pages.display().to_string()]).await;
    assert!(output.status.success(), "{:?}", texts(&output));
    let names: Vec<_> = std::fs::read_dir(&pages)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    for name in [
        "linkmic.1",
        "linkmic-serve.1",
        "linkmic-doctor.1",
        "linkmic-ctl-mixes-preview.1",
    ] {
        assert!(
            names.contains(&pages.join(name)),
            "{name} is missing: {names:?}"
        );
    }
    // All of them in one run: groff takes its time to start.
    let run = Command::new("groff")
        .args(["-Kutf8", "-man", "-ww", "-Tutf8", "-z"])
        .args(&names)
        .stdin(Stdio::null())
        .output();
    let output = timeout(SOON, run).await.expect("in time").expect("groff");
    let (_, errors) = texts(&output);
    assert!(output.status.success() && errors.is_empty(), "{errors}");

    let page = shown(&pages.join("linkmic-ctl-streams-drop.1")).await;
    assert!(
        page.contains("Disconnect the publisher") && page.contains("APP/STREAM"),
        "{page}"
    );
    // A page that is none is not let through.
    let broken = folder.path().join("broken.1");
    std::fs::write(&broken, ".TH x 1\n.SH NAME\n.no-such-macro\n").expect("a file");
    let run = Command::new("groff")
        .args(["-Kutf8", "-man", "-ww", "-Tutf8", "-z"])
        .arg(&broken)
        .output();
    let output = timeout(SOON, run).await.expect("in time").expect("groff");
    assert!(!texts(&output).1.is_empty());
    // Where it cannot write, it says so.
    let output = linkmic(&["man", &format!("{}/x", broken.display())]).await;
    let (_, errors) = texts(&output);
    assert!(
        output.status.code() == Some(2) && errors.contains("broken.1"),
        "{PROGRAM}: {errors}"
    );
}

/// A page as a terminal would have it, without what is bold.
async fn shown(page: &Path) -> String {
    let run = Command::new("groff")
        .args(["-Kutf8", "-man", "-Tascii", "-P-cbou"])
        .arg(page)
        .output();
    let output = timeout(SOON, run).await.expect("in time").expect("groff");
    texts(&output).0
}
