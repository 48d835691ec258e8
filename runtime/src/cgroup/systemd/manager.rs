//! The calls of systemd's manager (org.freedesktop.systemd1(5)).

use std::fs;
use std::path::Path;

use ketch_sys::process::Pid;

use super::{SystemdError, bus};
use crate::dbus::{Call, Connection, DbusError, Type, Value};
use crate::plan::cgroup::systemd::{Instance, Property, SystemdFacts};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const INVOCATION: &str = "InvocationID";
const UNEXPECTED: DbusError = DbusError::Unexpected { question: "Get" };
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// How a job treats others of its unit.
const MODE: &str = "replace";
/// The one result of a job that is a success.
const DONE: &str = "done";
/// There with systemd as the system's manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// A connection to an instance of systemd.
#[derive(Debug)]
pub struct Manager {
    connection: Connection,
}

impl Manager {
    /// Connects.
    ///
    /// # Errors
    /// systemd is not there, or does not answer.
    pub fn connect(instance: Instance) -> Result<Manager, SystemdError> {
        if !Path::new(BOOTED).is_dir() {
            return Err(SystemdError::NotRunning);
        }
        Ok(Manager { connection: bus::connect(instance).map_err(SystemdError::Connect)? })
    }

    /// What a plan must know of it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn facts(&mut self) -> Result<SystemdFacts, SystemdError> {
        let version = SystemdFacts::parse_version(&self.property("Version")?);
        let control_group = self.property("ControlGroup")?;
        let needs_names = SystemdFacts::needs_device_names(version);
        let devices =
            if needs_names { fs::read_to_string("/proc/devices").unwrap_or_default() } else { String::new() };
        Ok(SystemdFacts { version, control_group, devices })
    }

    fn property(&mut self, property: &'static str) -> Result<String, SystemdError> {
        let value = self.value((PATH, MANAGER), property)?;
        value.as_text().map(str::to_owned).ok_or(SystemdError::Fact { property, source: UNEXPECTED })
    }

    /// A property of an interface of an object.
    fn value(
        &mut self,
        (path, interface): (&str, &str),
        property: &'static str,
    ) -> Result<Value, SystemdError> {
        let body = [Value::text(interface), Value::text(property)];
        let call = Call {
            destination: NAME,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            body: &body,
        };
        let failed = |source| SystemdError::Fact { property, source };
        match self.connection.call("Get", &call).map_err(failed)?.pop() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => Err(failed(UNEXPECTED)),
        }
    }

    /// What tells the runs of one unit apart (systemd.exec(5), `INVOCATION_ID`), as hexadecimal digits; none for a unit that
    /// is not there.
    ///
    /// # Errors
    /// It does not answer, or is so old that it has none.
    pub fn invocation(&mut self, unit: &str) -> Result<Option<String>, SystemdError> {
        let path = format!("{PATH}/unit/{}", label(unit));
        let Value::Array(Type::Byte, bytes) = self.value((&path, UNIT), INVOCATION)? else {
            return Err(SystemdError::Fact { property: INVOCATION, source: UNEXPECTED });
        };
        let digits = bytes.iter().filter_map(|byte| match byte {
            Value::Byte(byte) => Some(format!("{byte:02x}")),
            _ => None,
        });
        Ok(Some(digits.collect::<String>()).filter(|digits| !digits.is_empty()))
    }

    /// Starts a transient unit, and waits until it is there. One of this name that has failed makes place for it.
    ///
    /// # Errors
    /// There is a unit of this name, a property is wrong, or it did not come in time.
    pub fn start(&mut self, unit: &str, properties: Vec<Property>, pids: &[Pid]) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Start { unit: unit.to_owned(), source };
        let mut properties: Vec<Value> = properties.into_iter().map(property_value).collect();
        if !pids.is_empty() {
            properties.push(property_value(Property { name: "PIDs".to_owned(), value: numbers(pids) }));
        }
        let no_others = Type::Struct(vec![Type::Text, Type::Array(Box::new(property_type()))]);
        let body = [
            Value::text(unit),
            Value::text(MODE),
            Value::Array(property_type(), properties),
            Value::Array(no_others, Vec::new()),
        ];
        self.connection.listen((MANAGER, "JobRemoved")).map_err(failed)?;
        let mut started = self.call("StartTransientUnit", &body);
        if started.as_ref().is_err_and(|error| error.is(UNIT_EXISTS)) {
            // What the reset is told does not matter: the second attempt shows whether it was one.
            let _reset = self.reset_failed(unit);
            started = self.call("StartTransientUnit", &body);
        }
        let job = started.and_then(|values| job_of(&values, "StartTransientUnit")).map_err(failed)?;
        let result = match self.result_of(&job, "start the unit") {
            Ok(result) => result,
            Err(source) => {
                // It may still come: then it is to go again, but there is no more time to wait for that.
                let body = [Value::text(unit), Value::text(MODE)];
                let _closed = self.connection.tell(&Self::method("StopUnit", &body));
                return Err(failed(source));
            }
        };
        match result.as_str() {
            DONE => Ok(()),
            result => {
                let _leaves_nothing = self.reset_failed(unit);
                Err(SystemdError::NotStarted { unit: unit.to_owned(), result: result.to_owned() })
            }
        }
    }

    /// Stops a unit and waits for its end, so that nothing of it is left, not even that it failed. One that is not there
    /// is no error.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self, unit: &str) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Stop { unit: unit.to_owned(), source };
        self.connection.listen((MANAGER, "JobRemoved")).map_err(failed)?;
        match self.call("StopUnit", &[Value::text(unit), Value::text(MODE)]) {
            Ok(values) => {
                let job = job_of(&values, "StopUnit").map_err(failed)?;
                // A unit that fails to stop has failed, and is reset below.
                self.result_of(&job, "stop the unit").map_err(failed)?;
            }
            Err(error) if error.is(NO_SUCH_UNIT) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        match self.reset_failed(unit) {
            // Gone with its last process.
            Err(error) if !error.is(NO_SUCH_UNIT) => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Changes properties of a unit, for as long as it is there.
    ///
    /// # Errors
    /// A property is wrong, or the unit is not there.
    pub fn set(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        let properties = properties.iter().cloned().map(property_value).collect();
        let body = [Value::text(unit), Value::Bool(true), Value::Array(property_type(), properties)];
        let set = self.call("SetUnitProperties", &body);
        set.map_err(|source| SystemdError::Set { unit: unit.to_owned(), source })?;
        // It answers first and writes then, but both before it reads another call: what we write comes after that.
        self.property("Version").map(|_version| ())
    }

    /// Moves a process into the cgroup of a unit, or one below it: an absolute path, seen from there.
    ///
    /// # Errors
    /// The process is gone or somebody else's, or the cgroup is not there.
    pub fn attach(&mut self, unit: &str, below: &str, pid: Pid) -> Result<(), SystemdError> {
        let body = [Value::text(unit), Value::text(below), numbers(&[pid])];
        let attached = self.call("AttachProcessesToUnit", &body);
        let failed = |source| SystemdError::Attach { unit: unit.to_owned(), pid, source };
        attached.map(|_nothing| ()).map_err(failed)
    }

    fn reset_failed(&mut self, unit: &str) -> Result<(), DbusError> {
        self.call("ResetFailedUnit", &[Value::text(unit)]).map(|_nothing| ())
    }

    fn call(&mut self, member: &'static str, body: &[Value]) -> Result<Vec<Value>, DbusError> {
        self.connection.call(member, &Self::method(member, body))
    }

    fn method<'a>(member: &'a str, body: &'a [Value]) -> Call<'a> {
        Call { destination: NAME, path: PATH, interface: MANAGER, member, body }
    }

    /// Waits for the end of a job: `JobRemoved(id, job, unit, result)`.
    fn result_of(&mut self, job: &str, question: &'static str) -> Result<String, DbusError> {
        self.connection.signal(question, |values| match values {
            [_, Value::Path(removed), _, Value::Text(result)] if removed == job => Some(result.clone()),
            _ => None,
        })
    }
}

/// A unit's name as the last part of its object's path: letters and digits, and `_` with two digits for every other byte,
/// and for a digit in front.
fn label(unit: &str) -> String {
    let escaped = |(at, byte): (usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        b'0'..=b'9' if at > 0 => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    };
    unit.bytes().enumerate().map(escaped).collect()
}

/// The job that a call has made.
fn job_of(values: &[Value], question: &'static str) -> Result<String, DbusError> {
    match values {
        [Value::Path(job)] => Ok(job.clone()),
        _ => Err(DbusError::Unexpected { question }),
    }
}

fn property_type() -> Type {
    Type::Struct(vec![Type::Text, Type::Variant])
}

fn property_value(Property { name, value }: Property) -> Value {
    Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))])
}

/// Process numbers as systemd takes them.
fn numbers(pids: &[Pid]) -> Value {
    Value::Array(Type::U32, pids.iter().map(|pid| Value::U32(pid.unsigned_abs())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_called_after_their_units() {
        assert_eq!(label("kit-1.scope"), "kit_2d1_2escope");
        assert_eq!(label("1a_b.slice"), "_31a_5fb_2eslice");
    }
}
