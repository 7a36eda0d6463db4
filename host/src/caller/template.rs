//! Texts with places in them: `$name` stands for a value, and its name is lower-case letters.

/// The parts of a template, in order: the name of a place, and the text behind it. The first part has no
/// place.
pub(super) fn parts(template: &str) -> impl Iterator<Item = (Option<&str>, &str)> {
    template.split('$').enumerate().map(|(at, part)| {
        if at == 0 {
            return (None, part);
        }
        let end = part.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(part.len());
        let (name, text) = part.split_at(end);
        (Some(name), text)
    })
}

/// Whether a template has the place `$name`.
pub(super) fn has(template: &str, name: &str) -> bool {
    parts(template).any(|(place, _)| place == Some(name))
}

/// An id that nobody has: in a form, `#` stands for a hexadecimal digit, `^` for one in capitals, `%` for a
/// decimal digit and `~` for a letter or digit. All else stands for itself.
pub(super) fn random_id(form: &str) -> String {
    let digit = |character| match character {
        '#' => fastrand::digit(16),
        '^' => fastrand::digit(16).to_ascii_uppercase(),
        '%' => fastrand::digit(10),
        '~' => fastrand::alphanumeric(),
        other => other,
    };
    form.chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_end_at_the_first_other_character() {
        let found: Vec<_> = parts(r#"{"n":"$seq","t":$tracks}$now"#).collect();
        let expected = [
            (None, r#"{"n":""#),
            (Some("seq"), r#"","t":"#),
            (Some("tracks"), "}"),
            (Some("now"), ""),
        ];
        assert_eq!(found, expected);
        assert!(has("a$seq", "seq") && !has("a$sequence", "seq"));
    }

    #[test]
    fn ids_are_of_their_form_and_differ() {
        let id = random_id("MZ####-^^^^-%%%%-~~");
        assert_eq!((id.len(), &id[..2]), (19, "MZ"));
        assert!(id[2..6].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
        assert!(
            id[7..11].bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)),
            "{id}"
        );
        assert!(id[12..16].bytes().all(|b| b.is_ascii_digit()), "{id}");
        assert_ne!(random_id("################"), random_id("################"));
    }
}
