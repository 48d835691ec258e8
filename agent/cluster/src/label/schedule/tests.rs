//! Expressions, zones and moments.

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    parse(&labels(&[(LABEL, cron), (ZONE, zone)])).unwrap().unwrap()
}

fn told(pairs: &[(&str, &str)]) -> String {
    parse(&labels(pairs)).unwrap_err().to_string()
}

fn moment(text: &str) -> Timestamp {
    let moment: jiff::Timestamp = text.parse().unwrap();
    Timestamp(u64::try_from(moment.as_nanosecond()).unwrap())
}

fn shown(moment: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(moment.0)).unwrap().to_string()
}

/// The next so many due times, in UTC.
fn due(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(cron, zone);
    let first = schedule.next(moment(after));
    std::iter::successors(first, |due| schedule.next(*due)).take(count).map(shown).collect()
}

#[test]
fn fields_are_lists_of_ranges_with_steps_and_names() {
    let at = "2026-11-27T10:50:30Z";
    for (cron, wanted) in [
        ("* * * * *", ["2026-11-27T10:51:00Z", "2026-11-27T10:52:00Z"]),
        ("*/15 * * * *", ["2026-11-27T11:00:00Z", "2026-11-27T11:15:00Z"]),
        ("50,55 10 * * *", ["2026-11-27T10:55:00Z", "2026-11-28T10:50:00Z"]),
        ("0 9-17/4 * * *", ["2026-11-27T13:00:00Z", "2026-11-27T17:00:00Z"]),
        ("10/25 3 * * *", ["2026-11-28T03:10:00Z", "2026-11-28T03:35:00Z"]),
        ("0 0 1 JAN,jul *", ["2027-01-01T00:00:00Z", "2027-07-01T00:00:00Z"]),
        ("0 6 * * Mon-Fri", ["2026-11-30T06:00:00Z", "2026-12-01T06:00:00Z"]),
        ("0 6 * * 7", ["2026-11-29T06:00:00Z", "2026-12-06T06:00:00Z"]),
        ("0 6 * * 0", ["2026-11-29T06:00:00Z", "2026-12-06T06:00:00Z"]),
        ("0 0 13 * fri", ["2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z"]),
        ("0 0 */2 * fri", ["2026-12-11T00:00:00Z", "2026-12-25T00:00:00Z"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
        ("@hourly", ["2026-11-27T11:00:00Z", "2026-11-27T12:00:00Z"]),
        ("@daily", ["2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"]),
        ("@weekly", ["2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"]),
        ("@monthly", ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]),
        ("@yearly", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]),
    ] {
        assert_eq!(due(cron, "UTC", at, 2), wanted, "{cron}");
    }
    assert_eq!(
        due("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1),
        ["2104-02-29T00:00:00Z"],
        "2100 has none"
    );
}

#[test]
fn what_is_no_expression_is_refused_with_its_part() {
    for (cron, field, part, range) in [
        ("60 * * * *", "minute", "60", "0 to 59"),
        ("* 24 * * *", "hour", "24", "0 to 23"),
        ("* * 0 * *", "day of the month", "0", "1 to 31"),
        ("* * * 13 *", "month", "13", "1 to 12"),
        ("* * * * 8", "day of the week", "8", "0 to 7"),
        ("5-1 * * * *", "minute", "5-1", "0 to 59"),
        ("*/0 * * * *", "minute", "*/0", "0 to 59"),
        ("1,,2 * * * *", "minute", "", "0 to 59"),
        ("+1 * * * *", "minute", "+1", "0 to 59"),
        ("* * * * x", "day of the week", "x", "0 to 7"),
        ("-1 * * * *", "minute", "-1", "0 to 59"),
    ] {
        let wanted = format!(
            "label ketch.schedule: the {field} {part:?} is neither *, nor a number from {range}, nor a range of such"
        );
        assert_eq!(told(&[(LABEL, cron)]), wanted);
    }
    let fields = "label ketch.schedule: \"* * * *\" has 4 fields, and not the five of a cron expression";
    assert_eq!(told(&[(LABEL, "* * * *")]), fields);
    assert_eq!(
        told(&[(LABEL, "0 0 30 2 *")]),
        "label ketch.schedule: \"0 0 30 2 *\" is a day that never comes"
    );
    assert!(told(&[(LABEL, "@reboot")]).contains("has 1 fields"));
}

#[test]
fn the_other_labels_have_their_words_and_need_the_expression() {
    let with = |label, value| told(&[(LABEL, "@daily"), (label, value)]);
    assert_eq!(
        with(ZONE, "Mars/Base"),
        "label ketch.schedule.zone: \"Mars/Base\" is no zone of the IANA database, such as Europe/Berlin"
    );
    assert_eq!(with(MISSED, "all"), "label ketch.schedule.missed: \"all\" is none of skip, run-once");
    assert_eq!(with(OVERLAP, ""), "label ketch.schedule.overlap: \"\" is none of allow, forbid, replace");
    assert_eq!(
        with(HISTORY, "101"),
        "label ketch.schedule.history: \"101\" is no number of runs from 0 to 100"
    );
    assert_eq!(told(&[(ZONE, "UTC")]), "label ketch.schedule.zone: there is no ketch.schedule beside it");
    let all = [(LABEL, "@daily"), (MISSED, "run-once"), (OVERLAP, "replace"), (HISTORY, "3")];
    let read = parse(&labels(&all)).unwrap().unwrap();
    assert_eq!((read.missed, read.overlap, read.history), (Missed::RunOnce, Overlap::Replace, Some(3)));
    assert_eq!((kept_runs(&labels(&all)), kept_runs(&labels(&[(HISTORY, "3")]))), (Some(3), None));
    let plain = schedule("@daily", "UTC");
    assert_eq!((plain.missed, plain.overlap, plain.history), (Missed::Skip, Overlap::Forbid, None));
    assert!(parse(&Labels::new()).unwrap().is_none());
}

#[test]
fn only_jobs_have_a_schedule() {
    let mut spec = crate::fixture::replicated(1, 1).spec;
    assert_eq!(fits(&spec), Ok(()));
    spec.labels = labels(&[(LABEL, "@daily")]);
    assert!(fits(&spec).is_err());
    spec.mode = crate::objects::ServiceMode::GlobalJob;
    assert_eq!(fits(&spec), Ok(()));
}

#[test]
fn a_clock_that_is_set_forward_brings_its_lost_hour_once() {
    // In New York 02:00 is 03:00 on 2026-03-08, at 07:00 UTC.
    let due = |cron, count| due(cron, "America/New_York", "2026-03-07T12:00:00Z", count);
    assert_eq!(due("30 2 * * *", 2), ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
    assert_eq!(due("0,30 2,3 8 3 *", 2), ["2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"]);
    let in_each_hour = self::due("30 * * * *", "America/New_York", "2026-03-08T06:00:00Z", 3);
    assert_eq!(in_each_hour, ["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z", "2026-03-08T08:30:00Z"]);
}

#[test]
fn a_clock_that_is_set_back_runs_nothing_twice_but_what_runs_every_hour() {
    // In Berlin 03:00 is 02:00 on 2026-10-25, at 01:00 UTC.
    let due = |cron, count| due(cron, "Europe/Berlin", "2026-10-24T22:15:00Z", count);
    assert_eq!(due("30 2 * * *", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let hourly = due("30 * * * *", 4);
    let each =
        ["2026-10-24T22:30:00Z", "2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
    assert_eq!(hourly, each);
}

#[test]
fn zones_have_their_own_days() {
    let at = "2026-11-27T12:00:00Z";
    assert_eq!(due("0 0 * * *", "Asia/Tokyo", at, 1), ["2026-11-27T15:00:00Z"]);
    assert_eq!(due("0 0 * * *", "Asia/Kathmandu", at, 1), ["2026-11-27T18:15:00Z"]);
    // Samoa had no 30 December 2011.
    let samoa = due("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3);
    assert_eq!(samoa, ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]);
}

#[test]
fn the_latest_of_years_of_minutes_is_found_at_once() {
    let every_minute = schedule("* * * * *", "Europe/Berlin");
    let (then, now) = (moment("1990-01-01T00:00:00Z"), moment("2026-11-27T10:50:30Z"));
    assert_eq!(every_minute.latest(then, now).map(shown).as_deref(), Some("2026-11-27T10:50:00Z"));
    assert_eq!(every_minute.latest(now, now), None);
}

fn expression() -> impl Strategy<Value = String> {
    let minute = prop::sample::select(vec!["*", "0", "*/7", "5,35", "30-40/5"]);
    let hour = prop::sample::select(vec!["*", "*/1", "2", "1-3", "0,12", "*/5"]);
    let day = prop::sample::select(vec!["*", "1", "*/3", "29-31"]);
    let month = prop::sample::select(vec!["*", "3,10,11", "*/2"]);
    let weekday = prop::sample::select(vec!["*", "0", "1-5", "*/2"]);
    (minute, hour, day, month, weekday).prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

fn any_zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "America/St_Johns",
    ])
}

proptest! {
    #[test]
    fn time_only_goes_forward_and_the_latest_is_the_last_of_all(
        cron in expression(), zone in any_zone(), start in 1_700_000_000..1_900_000_000_u64, days in 0..120_u64,
    ) {
        let schedule = schedule(&cron, zone);
        let start = crate::fixture::at(start);
        let until = start.after(std::time::Duration::from_secs(days * 86_400));
        let mut last = None;
        let mut moment = start;
        for _ in 0..2000 {
            let Some(next) = schedule.next(moment) else { break };
            prop_assert!(next > moment, "{cron} {zone}");
            if next > until {
                break;
            }
            // What lies between two due times leads to the later one.
            let middle = Timestamp(moment.0 + (next.0 - moment.0) / 2);
            prop_assert_eq!(schedule.next(middle), Some(next));
            (last, moment) = (Some(next), next);
        }
        if schedule.next(moment).is_none_or(|next| next > until) {
            prop_assert_eq!(schedule.latest(start, until), last);
        }
    }

    #[test]
    fn in_utc_the_next_is_the_first_minute_that_fits(cron in expression(), start in 1_700_000_000..1_900_000_000_u64) {
        let schedule = schedule(&cron, "UTC");
        let next = schedule.next(crate::fixture::at(start)).unwrap();
        let fields: Vec<&str> = cron.split(' ').collect();
        let fits = |second: u64| {
            let at = jiff::Timestamp::from_second(second as i64).unwrap().to_zoned(TimeZone::UTC);
            let values = [at.minute(), at.hour(), at.day(), at.month(), at.weekday().to_sunday_zero_offset()];
            let lows = [0, 0, 1, 1, 0];
            let has = |index: usize| naive(fields[index], i64::from(values[index]), lows[index]);
            let either = !fields[2].starts_with('*') && !fields[4].starts_with('*');
            let day = if either { has(2) || has(4) } else { has(2) && has(4) };
            has(0) && has(1) && has(3) && day
        };
        let mut minutes = (start / 60 + 1..).map(|minute| minute * 60).take(60 * 24 * 3);
        let end = crate::fixture::at(start + 3 * 86_400);
        let first = minutes.find(|second| fits(*second));
        match first {
            Some(first) => prop_assert_eq!(crate::fixture::at(first), next),
            None => prop_assert!(next > end, "{}", shown(next)),
        }
    }
}

/// Whether the value is one of the field's, read plainly.
fn naive(field: &str, value: i64, low: i64) -> bool {
    field.split(',').any(|part| {
        let (range, step) =
            part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
            None if range == "*" => (low, 99),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        (first..=last).contains(&value) && (value - first) % step == 0
    })
}
