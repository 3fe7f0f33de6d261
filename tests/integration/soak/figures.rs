//! What a server may not gain with time, read from the kernel when nobody is there and when everybody is.

use serde_json::{Value, json};

use super::world::World;

/// The process, when all players, anchors and mixes are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub resident_kib: u64,
    pub threads: usize,
    pub descriptors: usize,
    /// Of its runtime.
    pub tasks: u64,
    /// Bytes of media and unfinished messages, by its own account.
    pub held: u64,
}

/// Resident memory may be so much more at a later calm than at the first. What is freed in the midst of a heap stays
/// with the allocator, which has one for each thread.
pub const CALM_KIB: u64 = 16 << 10;
/// Under load the last minutes may have so much more than the first ones after the warm-up, in the median.
pub const LOADED_KIB: u64 = 32 << 10;

impl Figures {
    /// # Errors
    /// Why the server says nothing of itself.
    pub async fn of(world: &World) -> Result<Self, String> {
        let mut server = world.server.lock().await;
        let (resident_kib, threads) = (server.resident() / 1024, server.threads());
        let descriptors = server.descriptors();
        drop(server);
        let numbers = world.metrics().await?;
        let memory = numbers.series("linkmic_memory_bytes");
        let held = memory.iter().find(|(labels, _)| *labels == "kind=\"used\"");
        Ok(Self {
            resident_kib,
            threads,
            descriptors,
            tasks: numbers.value("linkmic_runtime_tasks") as u64,
            held: held.expect("its own account").1 as u64,
        })
    }

    /// The fewest of each.
    pub fn least(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib.min(other.resident_kib),
            threads: self.threads.min(other.threads),
            descriptors: self.descriptors.min(other.descriptors),
            tasks: self.tasks.min(other.tasks),
            held: self.held.min(other.held),
        }
    }

    /// What nobody is there for.
    pub fn left_over(&self) -> Option<String> {
        (self.held > 0).then(|| format!("{} bytes are held for nobody", self.held))
    }

    /// What is more than it was at the first calm.
    pub fn grown_since(&self, first: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.resident_kib > first.resident_kib + CALM_KIB {
            let (before, now) = (first.resident_kib, self.resident_kib);
            wrong.push(format!(
                "resident memory grew: {before} to {now} KiB, {CALM_KIB} more are allowed"
            ));
        }
        for (what, before, now) in [
            ("threads", first.threads, self.threads),
            ("descriptors", first.descriptors, self.descriptors),
            ("tasks", first.tasks as usize, self.tasks as usize),
        ] {
            if now > before {
                wrong.push(format!("{what} grew: {before} to {now}"));
            }
        }
        wrong
    }

    pub fn json(&self) -> Value {
        json!({
            "resident_kib": self.resident_kib, "threads": self.threads,
            "descriptors": self.descriptors, "tasks": self.tasks, "held": self.held,
        })
    }
}

/// What is wrong with resident memory at the end of each minute under load: the last third of them against the first.
/// Fewer than six minutes say nothing.
pub fn risen(minutes: &[u64]) -> Option<String> {
    let third = minutes.len() / 3;
    if third < 2 {
        return None;
    }
    let median = |of: &[u64]| {
        let mut sorted = of.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let (first, last) = (
        median(&minutes[..third]),
        median(&minutes[minutes.len() - third..]),
    );
    (last > first + LOADED_KIB).then(|| {
        format!(
            "resident memory under load rose: {first} to {last} KiB, {LOADED_KIB} more are allowed"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Figures = Figures {
        resident_kib: 50_000,
        threads: 12,
        descriptors: 40,
        tasks: 30,
        held: 0,
    };

    #[test]
    fn what_grew_is_told_and_what_shrank_is_not() {
        assert_eq!(CALM.grown_since(&CALM), Vec::<String>::new());
        let grown = Figures {
            resident_kib: CALM.resident_kib + CALM_KIB + 1,
            threads: 13,
            descriptors: 41,
            tasks: 31,
            held: 0,
        };
        assert_eq!(grown.grown_since(&CALM).len(), 4);
        assert_eq!(CALM.grown_since(&grown), Vec::<String>::new());
    }

    #[test]
    fn what_is_held_when_nobody_is_there_is_told() {
        let held = Figures { held: 384, ..CALM };
        assert!(held.left_over().expect("told").contains("384 bytes"));
        assert_eq!(held.least(CALM).left_over(), None);
    }

    #[test]
    fn memory_that_rises_minute_by_minute_is_told() {
        let flat: Vec<u64> = (0..60).map(|n| 80_000 + n % 7 * 2_000).collect();
        assert_eq!(risen(&flat), None);
        let leaky: Vec<u64> = (0..60).map(|n| 80_000 + n * 1_000).collect();
        assert!(risen(&leaky).is_some());
        assert_eq!(risen(&[1, 1 << 40]), None);
    }
}
