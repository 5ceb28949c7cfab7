//! Which key was probably meant by one that there is not.

/// Differences that a slip of the fingers makes: two letters, where there are enough others to tell the word by.
const SLIPS_MAX: usize = 2;
/// Fewer letters to a slip than this, and most words are near each other.
const LETTERS_PER_SLIP: usize = 3;
/// No key is longer, and what the user wrote is compared letter by letter.
const LENGTH_MAX: usize = 64;

/// The key nearest to `word` among those whose last part, behind their last dot, differs little from that of `word`.
pub(super) fn nearest<'a>(word: &str, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tail = |text: &'a str| text.rsplit('.').next().unwrap_or(text);
    let written = word.rsplit('.').next().unwrap_or(word).to_ascii_lowercase();
    if written.is_empty() || written.len() > LENGTH_MAX {
        return None;
    }
    let near = |key: &'a str| {
        let slips = slips(written.as_bytes(), tail(key).as_bytes());
        let most = (written.len() / LETTERS_PER_SLIP).min(SLIPS_MAX);
        (slips <= most).then_some((slips, key))
    };
    keys.filter_map(near).min_by_key(|(slips, _)| *slips).map(|(_, key)| key)
}

/// Letters that were left out, added, changed or swapped with the next one to make one word of the other (optimal string
/// alignment).
fn slips(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX);
            let changed = at(&row, j) + usize::from(letter != other);
            let mut least = changed.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped =
                i > 0 && j > 0 && a.get(i - 1) == Some(other) && b.get(j - 1) == Some(letter);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_leads_to_the_key_that_was_meant() {
        let keys = ["portolan.mode", "portolan.storm", "portolan.ra", "portolan.dhcp_range"];
        let found = |word| nearest(word, keys.into_iter());
        assert_eq!(found("portolan.mdoe"), Some("portolan.mode"));
        assert_eq!(found("mode"), Some("portolan.mode"));
        assert_eq!(found("portolan.Storms"), Some("portolan.storm"));
        assert_eq!(found("portolan.dhcp-rage"), Some("portolan.dhcp_range"));
        assert_eq!(found("ra"), Some("portolan.ra"));
        for far in ["", "portolan.", "rb", "portolan.colour", "parent", "é", &"m".repeat(1 << 20)]
        {
            assert_eq!(found(far), None, "{far:.20}");
        }
    }

    #[test]
    fn slips_are_counted_as_letters_that_differ() {
        for (a, b, count) in [
            ("", "", 0),
            ("", "ab", 2),
            ("mode", "mdoe", 1),
            ("guard", "gard", 1),
            ("ra", "hub", 3),
        ] {
            assert_eq!(slips(a.as_bytes(), b.as_bytes()), count, "{a} {b}");
            assert_eq!(slips(b.as_bytes(), a.as_bytes()), count, "{b} {a}");
        }
    }
}
