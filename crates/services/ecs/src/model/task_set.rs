//! Task sets: the parts of a service whose deployments somebody else controls.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-external.html>

use super::Tags;
use serde::{Deserialize, Serialize};
use world::Timestamp;

/// Who deploys a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Controller {
    /// ECS itself.
    #[default]
    Ecs,
    /// CodeDeploy, with task sets.
    CodeDeploy,
    /// Whoever calls CreateTaskSet.
    External,
}

impl Controller {
    /// As AWS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecs => "ECS",
            Self::CodeDeploy => "CODE_DEPLOY",
            Self::External => "EXTERNAL",
        }
    }
}

/// Where a task set is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskSetStatus {
    /// It has the production traffic.
    Primary,
    /// It has not.
    Active,
    /// Deleted; its tasks stop.
    Draining,
}

impl TaskSetStatus {
    /// As AWS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
        }
    }
}

/// What a task set has beyond a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSet {
    /// What somebody else calls it.
    pub external_id: Option<String>,
    /// `CODE_DEPLOY`, or none.
    pub started_by: Option<String>,
    /// Makes the same request make one task set.
    pub client_token: Option<String>,
    /// Its share of the service's desired count, in percent.
    pub percent: f64,
    /// Where it is in its life.
    pub status: TaskSetStatus,
    /// Whether its tasks are as wanted.
    pub steady: bool,
    /// Since when they are, or are not.
    pub stability_at: Timestamp,
    /// Its tags.
    pub tags: Tags,
}

impl TaskSet {
    /// How many tasks it is to have, of a service that is to have so many.
    pub fn count(&self, desired: i32) -> i32 {
        match self.status {
            TaskSetStatus::Draining => 0,
            // Always up; what rounding errors add is taken off first.
            _ => (f64::from(desired) * self.percent / 100.0 - 1e-9).ceil() as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rounded_up() {
        let set = |percent| TaskSet {
            external_id: None,
            started_by: None,
            client_token: None,
            percent,
            status: TaskSetStatus::Active,
            steady: false,
            stability_at: Timestamp::from_millis(0),
            tags: Tags::new(),
        };
        for (desired, percent, count) in
            [(10, 12.0, 2), (10, 100.0, 10), (3, 33.3, 1), (100, 7.0, 7), (4, 0.0, 0), (0, 50.0, 0)]
        {
            assert_eq!(set(percent).count(desired), count, "{desired} {percent}");
        }
        assert_eq!(TaskSet { status: TaskSetStatus::Draining, ..set(100.0) }.count(3), 0);
    }
}
