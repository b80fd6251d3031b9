//! When a scheduled action is due.
//! <https://docs.aws.amazon.com/autoscaling/application/userguide/scheduled-scaling-using-cron-expressions.html>

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use std::time::Duration;
use world::Timestamp;

/// A schedule, read.
#[derive(Debug)]
pub(crate) enum Schedule {
    /// Once.
    At(Timestamp),
    /// Every so often, counted from when it was put.
    Rate(Duration),
    /// By the calendar of a zone.
    Cron(Box<croner::Cron>, Tz),
}

/// Reads `at(yyyy-mm-ddThh:mm:ss)`, `rate(VALUE UNIT)` or `cron(MINUTE HOUR DAY MONTH WEEKDAY YEAR)`. The
/// error is for people.
pub(crate) fn read(text: &str, zone: Option<&str>) -> Result<Schedule, String> {
    let zone: Tz = match zone {
        None => Tz::UTC,
        Some(name) => name.parse().map_err(|_| format!("Unknown timezone: {name}"))?,
    };
    let inner = |kind: &str| text.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(time) = inner("at") {
        return at(time.trim(), zone).map(Schedule::At);
    }
    if let Some(rate) = inner("rate") {
        return period(rate.trim()).map(Schedule::Rate);
    }
    if let Some(fields) = inner("cron") {
        return cron(fields.trim()).map(|cron| Schedule::Cron(Box::new(cron), zone));
    }
    Err(format!("Schedule expression '{text}' must be one of at(…), rate(…) or cron(…)"))
}

fn at(text: &str, zone: Tz) -> Result<Timestamp, String> {
    let wrong = || format!("'{text}' must have the form yyyy-mm-ddThh:mm:ss");
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").map_err(|_| wrong())?;
    match zone.from_local_datetime(&naive) {
        // Of an hour that comes twice, the first.
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => {
            Ok(Timestamp::from_millis(time.timestamp_millis()))
        }
        LocalResult::None => Err(format!("{text} does not exist in {zone}")),
    }
}

fn period(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' must be a positive number and minute(s), hour(s) or day(s)");
    let (value, unit) = text.split_once(' ').ok_or_else(wrong)?;
    let value: u64 = value.parse().ok().filter(|value| *value > 0).ok_or_else(wrong)?;
    let minutes = match unit.trim() {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 24 * 60,
        _ => return Err(wrong()),
    };
    value.checked_mul(minutes * 60).map(Duration::from_secs).ok_or_else(wrong)
}

fn cron(fields: &str) -> Result<croner::Cron, String> {
    let count = fields.split_whitespace().count();
    if count != 6 {
        return Err(format!(
            "'{fields}' must have 6 fields: minutes, hours, day of month, month, day of week, year"
        ));
    }
    let days: Vec<&str> = fields.split_whitespace().collect();
    // One of the two says when; the other must leave it open.
    if days[2] != "?" && days[4] != "?" && (days[2] != "*" || days[4] != "*") {
        return Err(format!("'{fields}': one of day of month and day of week must be ?"));
    }
    // 1 is Sunday, as on AWS.
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Required)
        .alternative_weekdays(true)
        .sloppy_ranges(true)
        .build();
    parser.parse(&format!("0 {fields}")).map_err(|error| format!("'{fields}': {error}"))
}

impl Schedule {
    /// When it is due first after `after`; `put` is when it was put. None when never.
    pub(crate) fn next(&self, after: Timestamp, put: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(*time).filter(|time| *time > after),
            Self::Rate(period) => {
                let period_ms = i64::try_from(period.as_millis()).ok()?;
                let passed = (after.millis() - put.millis()).max(0) / period_ms;
                let next = (passed + 1).checked_mul(period_ms)?.checked_add(put.millis())?;
                Some(Timestamp::from_millis(next))
            }
            Self::Cron(cron, zone) => {
                let after = DateTime::<Utc>::from_timestamp_millis(after.millis())?;
                let next = cron.find_next_occurrence(&after.with_timezone(zone), false).ok()?;
                Some(Timestamp::from_millis(next.timestamp_millis()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn next(schedule: &str, zone: Option<&str>, after: &str) -> Option<String> {
        let put = time("2026-01-01T00:00:00Z");
        read(schedule, zone).unwrap().next(time(after), put).map(|next| next.rfc3339())
    }

    #[test]
    fn schedules_are_due_as_aws_says() {
        let new_york = Some("America/New_York");
        for (schedule, zone, after, expected) in [
            ("at(2026-11-26T12:00:00)", None, "2026-11-26T11:59:59Z", "2026-11-26T12:00:00"),
            ("at(2026-11-26T12:00:00)", new_york, "2026-11-26T11:59:59Z", "2026-11-26T17:00:00"),
            ("rate(5 minutes)", None, "2026-01-01T00:07:00Z", "2026-01-01T00:10:00"),
            ("rate(1 day)", None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00"),
            ("cron(0 9 * * ? *)", None, "2026-11-26T09:00:00Z", "2026-11-27T09:00:00"),
            ("cron(0 9 ? * 2 *)", None, "2026-11-26T00:00:00Z", "2026-11-30T09:00:00"),
            ("cron(0 9 ? * MON-FRI *)", None, "2026-11-27T09:00:00Z", "2026-11-30T09:00:00"),
            ("cron(30 17 L * ? *)", None, "2026-11-26T00:00:00Z", "2026-11-30T17:30:00"),
            ("cron(0 8 ? * 6#3 *)", None, "2026-11-01T00:00:00Z", "2026-11-20T08:00:00"),
            ("cron(0/15 * * * ? 2027)", None, "2026-11-01T00:00:00Z", "2027-01-01T00:00:00"),
            // The clocks go forward over 2:30 on 8 March 2026.
            ("cron(0 9 * * ? *)", new_york, "2026-03-07T15:00:00Z", "2026-03-08T13:00:00"),
        ] {
            let found = next(schedule, zone, after).unwrap();
            assert!(found.starts_with(expected), "{schedule} after {after}: {found}");
        }
        assert_eq!(next("at(2026-11-26T12:00:00)", None, "2026-11-26T12:00:00Z"), None);
        assert_eq!(next("cron(0 9 * * ? 2025)", None, "2026-11-26T12:00:00Z"), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "at()",
            "at(tomorrow)",
            "rate(0 minutes)",
            "rate(5)",
            "rate(5 weeks)",
            "cron(* * * * *)",
            "cron(0 9 1 * 2 *)",
            "cron(61 * * * ? *)",
            "every day",
            "cron(0 9 * * ? * *)",
        ] {
            assert!(read(text, None).is_err(), "{text}");
        }
        assert!(read("rate(1 day)", Some("Mars/Olympus")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_schedule_or_none(text in "(at|rate|cron)\\([0-9*?LW#/,A-Z -]{0,24}\\)") {
            if let Ok(schedule) = read(&text, None) {
                let now = time("2026-11-26T12:00:00Z");
                if let Some(next) = schedule.next(now, now) {
                    prop_assert!(next > now);
                }
            }
        }
    }
}
