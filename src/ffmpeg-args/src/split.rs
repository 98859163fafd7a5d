//! A logged command string, split into words as .NET does it on Linux (contract 0.1).
//!
//! Jellyfin builds one string and .NET splits it; a process gets argv ready split. This is for
//! strings out of logs alone.

/// Splits a command string into words, the program's name included.
///
/// Spaces and tabs separate outside quotes; `"` toggles quoting; inside quotes `""` is a quote;
/// backslashes are plain unless they precede a `"`, where a pair stands for one and an odd one
/// makes the quote plain. Single quotes, `$` and the like mean nothing.
pub fn split_command_line(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while rest.next_if(|c| is_separator(*c)).is_some() {}
    while rest.peek().is_some() {
        let mut word = String::new();
        let mut quoted = false;
        while let Some(c) = rest.next_if(|c| quoted || !is_separator(*c)) {
            match c {
                '\\' => {
                    let mut count = 1;
                    while rest.next_if_eq(&'\\').is_some() {
                        count += 1;
                    }
                    if rest.peek() == Some(&'"') {
                        word.extend(std::iter::repeat_n('\\', count / 2));
                        if count % 2 == 1 {
                            word.extend(rest.next());
                        }
                    } else {
                        word.extend(std::iter::repeat_n('\\', count));
                    }
                }
                '"' if quoted && rest.next_if_eq(&'"').is_some() => word.push('"'),
                '"' => quoted = !quoted,
                c => word.push(c),
            }
        }
        words.push(word);
        while rest.next_if(|c| is_separator(*c)).is_some() {}
    }
    words
}

fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: &[&str]) {
        assert_eq!(split_command_line(line), expect, "{line}");
    }

    #[test]
    fn words_are_split_as_dotnet_does() {
        check("", &[]);
        check("  a \t b  ", &["a", "b"]);
        check(r#"-i file:"/m/A B.mkv" -y"#, &["-i", "file:/m/A B.mkv", "-y"]);
        check(
            r#"ocl:.0,device_vendor="Advanced Micro Devices""#,
            &["ocl:.0,device_vendor=Advanced Micro Devices"],
        );
        check(r#"-dump_attachment:t "" -y"#, &["-dump_attachment:t", "", "-y"]);
        check(r#""min(max(iw\,ih*a)\,1920)""#, &[r"min(max(iw\,ih*a)\,1920)"]);
        check(r#""E:\dir\" next"#, &[r#"E:\dir" next"#]);
        check(r#""E:\dir\\" next"#, &[r"E:\dir\", "next"]);
        check(r#""a""b""#, &[r#"a"b"#]);
        check(r#"\"a b\""#, &[r#""a"#, r#"b""#]);
        check("it's $HOME; a|b", &["it's", "$HOME;", "a|b"]);
        check(r#""open end"#, &["open end"]);
    }
}
