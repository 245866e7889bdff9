//! The kernel of a machine's guest: its log, its reports, its clock.

use std::time::{Duration, Instant};

use super::error::VmError;
use super::guest::Guest;
use super::kernel_log::Decoder;
use super::splat_desk::Expectation;
use super::vm::Vm;

/// How long a look at the whole log may take, before the accelerator's factor.
const SETTLE: Duration = Duration::from_secs(2);

impl Vm {
    /// Returns once every report that the kernel has made until now has been told, as far as it can be known.
    pub async fn settle_log(&self) {
        let Some(running) = self.running() else { return };
        let ask = self.booted("settle").is_ok() && running.death().is_none();
        running.log().sync(ask, self.scaled(SETTLE)).await;
    }

    /// What the kernel reports from now on.
    ///
    /// # Errors
    /// When the machine is not booted.
    pub fn expect_reports(&self) -> Result<Expectation, VmError> {
        self.booted("expect_splat")?;
        Ok(self.bed().splats().expect(self.reference()))
    }

    /// Waits until the guest goes away; never returns where it is not there.
    pub async fn wait_for_end(&self) {
        match self.running() {
            Some(running) => drop(running.wait_for_death().await),
            None => std::future::pending().await,
        }
    }

    /// The kernel's log, a line each as `dmesg` prints it; with `part` only the lines that contain it.
    ///
    /// # Errors
    /// A guest without a log, a dead guest.
    pub async fn dmesg(&self, part: &[u8]) -> Result<Vec<u8>, VmError> {
        let records = self.op("dmesg", async |agent| agent.kernel_log().await).await?;
        let mut text = Vec::new();
        for record in Decoder::default().push(&records) {
            record.print(|line| {
                if part.is_empty() || memchr::memmem::find(&line, part).is_some() {
                    text.extend_from_slice(&line);
                    text.push(b'\n');
                }
            });
        }
        Ok(text)
    }

    /// Nanoseconds since the epoch by the guest's clock.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn clock(&self) -> Result<i64, VmError> {
        self.op("clock", async |agent| agent.clock().await).await
    }

    /// Sets the guest's clock.
    ///
    /// # Errors
    /// A time that the kernel refuses, a dead guest.
    pub async fn set_clock(&self, nanoseconds: i64) -> Result<(), VmError> {
        let result = self.op("clock", async |agent| agent.set_clock(nanoseconds).await).await;
        result.map_err(|error| match error {
            VmError::Agent { vm, source } => VmError::Failed {
                vm,
                message: format!("{source}\nhint: Linux refuses a time that would put its own boot before 1970"),
            },
            other => other,
        })
    }

    /// Moves the guest's clock by so many nanoseconds, as if no time passed meanwhile.
    ///
    /// # Errors
    /// As `set_clock`.
    pub async fn advance_clock(&self, nanoseconds: i64) -> Result<(), VmError> {
        let asked = Instant::now();
        let now = self.clock().await?;
        // What the answer has been on its way for, and what the order will be, is half of this each.
        let way = i64::try_from(asked.elapsed().as_nanos()).unwrap_or_default();
        let then = now.checked_add(way).and_then(|now| now.checked_add(nanoseconds));
        match then {
            Some(then) => self.set_clock(then).await,
            None => Err(VmError::Failed {
                vm: self.name().to_owned(),
                message: "clock: the time would be beyond the year 2262".to_owned(),
            }),
        }
    }
}

impl Guest {
    /// Lets a time pass in the guest.
    ///
    /// # Errors
    /// A dead guest.
    pub async fn sleep(&self, time: Duration) -> Result<(), VmError> {
        self.op("clock", async |agent| agent.sleep(time).await).await
    }
}
