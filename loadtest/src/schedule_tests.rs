use proptest::prelude::*;

use super::*;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (1_u64..20_000, 0.0..5_000.0_f64, 0.0..5_000.0_f64).prop_map(|(ms, from, to)| Step {
            length: Duration::from_millis(ms),
            from,
            to,
        });
    prop::collection::vec(step, 1..6)
}

/// The integral of the rate up to `seconds`, by trapezoids, which are exact for linear rates.
fn integral(steps: &[Step], seconds: f64) -> f64 {
    let (mut sum, mut begin) = (0.0, 0.0);
    for step in steps {
        let length = step.length.as_secs_f64();
        let within = (seconds - begin).clamp(0.0, length);
        let reached = step.from + (step.to - step.from) * within / length;
        sum += f64::midpoint(step.from, reached) * within;
        begin += length;
    }
    sum
}

proptest! {
    /// There are as many arrivals as the rate requires, the last one is inside, and none is after it.
    #[test]
    fn the_count_is_that_of_the_rate(steps in steps()) {
        let arrivals = Arrivals::new(steps.iter().copied());
        let length: Duration = steps.iter().map(|step| step.length).sum();
        let wanted = integral(&steps, length.as_secs_f64());
        let count = arrivals.count();
        prop_assert!((count as f64 - wanted).abs() <= 1.0, "{count} of {wanted}");
        prop_assert_eq!(arrivals.due(count), None);
        if count > 0 {
            let last = arrivals.due(count - 1).unwrap();
            prop_assert!(last <= length, "{last:?} of {length:?}");
            prop_assert!(arrivals.due(0).unwrap() <= last);
        }
    }

    /// Arrival n is due after exactly n arrivals, for any steps and arrivals: there is no drift.
    #[test]
    fn nothing_drifts(steps in steps(), part in 0.0..1.0_f64) {
        let arrivals = Arrivals::new(steps.iter().copied());
        prop_assume!(arrivals.count() > 0);
        let number = whole(part * arrivals.count() as f64).min(arrivals.count() - 1);
        let due = arrivals.due(number).unwrap().as_secs_f64();
        let before = integral(&steps, due);
        prop_assert!((before - number as f64).abs() < 0.01, "{number} is due after {before}");
    }

    /// Arrivals are in order of time.
    #[test]
    fn arrivals_come_in_order(steps in steps(), part in 0.0..1.0_f64) {
        let arrivals = Arrivals::new(steps.iter().copied());
        prop_assume!(arrivals.count() > 1);
        let number = whole(part * (arrivals.count() - 1) as f64).min(arrivals.count() - 2);
        prop_assert!(arrivals.due(number).unwrap() <= arrivals.due(number + 1).unwrap());
    }

    /// At a constant rate, arrival n is due after n intervals to within a microsecond, even after a day.
    #[test]
    fn a_steady_rate_is_steady(rate in 0.1..100_000.0_f64, number in 0..1_000_000_u64) {
        let day = Duration::from_secs(86_400);
        let arrivals = Arrivals::steady(rate, day);
        prop_assume!(number < arrivals.count());
        let due = arrivals.due(number).unwrap().as_secs_f64();
        prop_assert!((due - number as f64 / rate).abs() < 1e-6);
    }
}

#[test]
fn steps_without_arrivals_are_passed_over() {
    let step = |ms, from, to| Step {
        length: Duration::from_millis(ms),
        from,
        to,
    };
    let arrivals = Arrivals::new([
        step(1_000, 0.0, 0.0),
        step(0, 9.0, 9.0),
        step(1_000, 2.0, 2.0),
        step(1_000, 0.0, 0.0),
        step(1_000, 1.0, 1.0),
    ]);
    let due: Vec<_> = (0..4).map(|number| arrivals.due(number)).collect();
    let at = |ms| Some(Duration::from_millis(ms));
    assert_eq!(due, [at(1_000), at(1_500), at(3_000), None]);
    assert_eq!(arrivals.count(), 3);
    assert!((arrivals.rate_at(1.2) - 2.0).abs() < 1e-9 && arrivals.rate_at(9.0) < 1e-9);
}

#[test]
fn a_ramp_comes_ever_faster() {
    let arrivals = Arrivals::new([Step {
        length: Duration::from_secs(10),
        from: 0.0,
        to: 20.0,
    }]);
    assert_eq!(arrivals.count(), 100);
    // A quarter of the arrivals are due after half of the time.
    assert_eq!(arrivals.due(25), Some(Duration::from_secs(5)));
    assert!((arrivals.rate_at(5.0) - 10.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_is_timed_from_its_due_times() {
    let schedule = Schedule::new(Some(100.0), Duration::from_secs(1));
    assert_eq!(schedule.unsent(), 100);
    let first = schedule.next().await.unwrap();
    assert_eq!((first.number, first.due), (0, schedule.begin()));
    let second = schedule.next().await.unwrap().due - schedule.begin();
    let grain = Duration::from_millis(10)..=Duration::from_millis(12);
    assert!(grain.contains(&second), "{second:?}");
    // After a stall of half a second, requests that became due in that time are timed from when they were due, not from
    // when they could be sent.
    tokio::time::advance(Duration::from_millis(500)).await;
    let third = schedule.next().await.unwrap();
    assert_eq!(third.due - schedule.begin(), Duration::from_millis(20));
    assert_eq!((third.number, schedule.unsent()), (2, 97));
    for _ in 3..100 {
        assert!(schedule.next().await.is_some());
    }
    assert_eq!(schedule.next().await, None);
    assert_eq!(schedule.unsent(), 0);
}

#[tokio::test]
async fn a_closed_loop_goes_on_until_it_is_stopped() {
    let schedule = Schedule::new(None, Duration::ZERO);
    assert!(schedule.next().await.is_some() && schedule.next().await.is_some());
    schedule.stop();
    assert_eq!(schedule.next().await, None);
    assert_eq!(schedule.unsent(), 0);
}
