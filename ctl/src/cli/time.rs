//! Times as the API gives them (RFC 3339 in UTC), and as people say them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan::topology::for_people;

/// Seconds since 1970, now.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is an edge: it tells people how long ago something was"
)]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds since 1970 of an RFC 3339 time; fractions are cut off.
pub fn parse(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, offset) = match clock.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let at = clock.rfind(['+', '-'])?;
            let (hours, minutes) = clock.get(at + 1..)?.split_once(':')?;
            let size = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            (clock.get(..at)?, if clock.as_bytes().get(at) == Some(&b'-') { -size } else { size })
        }
    };
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next()?.parse().ok()?;
    let minute: i64 = clock.next()?.parse().ok()?;
    let second: i64 = clock.next()?.split('.').next()?.parse().ok()?;
    let sane = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    sane.then(|| {
        days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the leap day comes last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

/// How long ago an RFC 3339 time was; the text itself where it is none.
pub fn ago(text: &str) -> String {
    let span = |then| for_people(u64::try_from(now() - then).unwrap_or(0));
    parse(text).map_or_else(|| text.to_owned(), |then| format!("{} ago", span(then)))
}

/// A point in time as `--since` takes it: seconds since 1970, RFC 3339, or a span before now such as `1h30m`.
pub fn since(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    if let Some(time) = parse(text) {
        return Ok(time);
    }
    let ago = duration(text).ok_or_else(|| {
        format!("{text:?} is no time: give seconds since 1970, 2026-01-31T12:00:00Z, or how long ago, as 10m or 1h30m")
    })?;
    Ok(now().saturating_sub(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX)))
}

/// A span of time, such as `10s` or `1h30m`.
pub fn span(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| format!("{text:?} is no span of time: give it as 10s or 1h30m"))
}

fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest.get(..unit_at)?.parse().ok()?;
        let tail = rest.get(unit_at..)?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let unit = match tail.get(..end)? {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(count).ok()?)?)?;
        rest = tail.get(end..)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use portolan::topology::Moment;

    use super::*;

    #[test]
    fn times_are_read_as_the_daemon_writes_them() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2024-02-29T12:34:56.789Z"), Some(1_709_210_096));
        assert_eq!(parse("2024-02-29T14:34:56+02:00"), Some(1_709_210_096));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(parse("2024-13-01T00:00:00Z"), None);
        for seconds in [0, 951_782_400, 951_868_800, 1_709_210_096, 4_102_444_799] {
            assert_eq!(parse(&Moment(seconds * 1_000_000_000).to_string()), Some(seconds));
        }
    }

    #[test]
    fn since_takes_seconds_times_and_spans() {
        assert_eq!(since("1709210096"), Ok(1_709_210_096));
        assert_eq!(since("2024-02-29T12:34:56Z"), Ok(1_709_210_096));
        let ago = since("1h30m").unwrap();
        assert!((now() - 5400 - ago).abs() <= 1);
        for bad in ["", "10", "ten", "5x", "-"].iter().filter(|b| b.parse::<i64>().is_err()) {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
