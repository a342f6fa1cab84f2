//! Promise: what a role may not do ends the process, at once and whatever it has tried before.

mod confined;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

use confined::{again, exactly, fill_descriptors_below, level, must_end, part};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use papayachat::confine::attack::{self, Attack, Refusal};
use papayachat::confine::{self, Level, Report, Role};
use papayachat::sys::confine_linux::perform;

/// The roles whose filter is the least they need; the launcher's is the union of all.
const ROLES: [Role; 5] = [Role::Keeper, Role::Listener, Role::Recv, Role::RecvJoined, Role::Send];

fn main() -> ExitCode {
    if let Some((role, name)) = part() {
        return attacker(&role, &name);
    }
    let mut trials = vec![
        Trial::test("a confined process ends in peace", ends_in_peace),
        Trial::test("a panic is reported and is no violation", panics_in_peace),
        Trial::test("a second thread is refused", refuses_threads),
        Trial::test("a level that is not reached is fatal", refuses_weaker),
    ];
    for role in ROLES {
        for attack in attack::all().into_iter().filter(|attack| attack.is_for(role)) {
            let name = format!("{role}: {} ({})", attack.name(), attack.gain());
            let missing = attack.number().is_none();
            // What is no matter of the filter is Landlock's, and open without it.
            let missing = missing || attack.refusal(role, level()) == Refusal::Open;
            trials.push(
                Trial::test(name, move || is_refused(role, &attack)).with_ignored_flag(missing),
            );
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn is_refused(role: Role, attack: &Attack) -> Result<(), Failed> {
    let output = again(&role.to_string(), attack.name()).output()?;
    let Refusal::Fails(errno) = attack.refusal(role, level()) else {
        return must_end(&output, "SIGSYS");
    };
    must_end(&output, "exit 0")?;
    let wanted = format!("returned Some(Err({:?}))", Errno::from_raw(errno));
    match String::from_utf8_lossy(&output.stderr) {
        said if said.contains(&wanted) => Ok(()),
        said => Err(format!("instead of {wanted}: {said}").into()),
    }
}

fn ends_in_peace() -> Result<(), Failed> {
    ROLES
        .into_iter()
        .try_for_each(|role| must_end(&again(&role.to_string(), "").output()?, "exit 0"))
}

fn panics_in_peace() -> Result<(), Failed> {
    for role in ROLES {
        let output = again(&role.to_string(), "panic").output()?;
        must_end(&output, "exit 101")?;
        if !String::from_utf8_lossy(&output.stderr).contains("as it was told") {
            return Err("the panic's message is lost".into());
        }
    }
    Ok(())
}

fn refuses_threads() -> Result<(), Failed> {
    let output = again("listener", "two-threads").output()?;
    must_end(&output, "exit 1")?;
    match String::from_utf8_lossy(&output.stderr).contains("several threads") {
        true => Ok(()),
        false => Err("the reason is missing".into()),
    }
}

fn refuses_weaker() -> Result<(), Failed> {
    let output = again("listener", "weaker").output()?;
    must_end(&output, "exit 1")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match said.contains("level \"seccomp\"") && said.contains("sandbox.require") {
        true => Ok(()),
        false => Err(format!("the reason is missing: {said}").into()),
    }
}

/// The part: confines itself and attacks.
fn attacker(role: &str, name: &str) -> ExitCode {
    let Some(role) = Role::ALL.into_iter().find(|known| known.to_string() == role) else {
        return ExitCode::FAILURE;
    };
    let threads = (name == "two-threads").then(|| {
        let (stay, leave) = std::sync::mpsc::channel::<()>();
        (stay, std::thread::spawn(move || leave.recv()))
    });
    if let Err(error) = confine_as(role, name == "weaker") {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    drop(threads);
    if name == "panic" {
        panic!("as it was told");
    }
    if let Some(attack) = attack::find(name) {
        eprintln!("{name} returned {:?}", perform(&attack));
    }
    ExitCode::SUCCESS
}

fn confine_as(role: Role, weaker: bool) -> Result<Report, Box<dyn std::error::Error>> {
    // Number 3 is the keeper's directory; the kinds of the others do not matter to a filter.
    let directory = File::open("/usr")?;
    fill_descriptors_below(9);
    let mut context = exactly(if weaker { Level::Seccomp } else { level() });
    if weaker {
        context.require = Level::Landlock2;
    }
    context.state_dir = Some(directory.as_fd());
    context.descriptors = Some(256);
    if role != Role::RecvJoined {
        let report = confine::enter(role, &context)?;
        std::mem::forget(directory);
        return Ok(report);
    }
    let earlier = confine::enter(Role::Recv, &context)?;
    context.earlier = Some(&earlier);
    let report = confine::enter(role, &context)?;
    std::mem::forget(directory);
    Ok(report)
}
