//! Terminals: over the console socket, in the foreground, and of exec.

use ketch_integration::console::{FdSocket, Terminal};
use ketch_integration::runtime::Kind;
use ketch_integration::{Case, Container, tests};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

tests![
    create_sends_the_master_over_the_console_socket,
    the_terminal_is_the_controlling_one,
    console_size_is_set,
    foreground_run_relays_the_terminal,
    exec_with_a_terminal_over_the_socket,
    exec_tty_in_the_foreground,
    the_first_line_meets_a_terminal_that_is_set_up,
    console_device_is_the_terminal,
    a_missing_console_socket_is_named,
];

fn with_socket(case: &Case, script: &str, change: impl FnOnce(&mut serde_json::Value)) -> (String, Terminal) {
    let socket = FdSocket::bind(&case.dir, "console.sock");
    let bundle = case.bundle().script(script).set("/process/terminal", json!(true)).edit(change);
    let _ = bundle.create_command().arg("--console-socket").arg(&socket.path).arg(&bundle.id).run().ok();
    (bundle.id.clone(), socket.terminal())
}

fn create_sends_the_master_over_the_console_socket(case: &Case) {
    let (id, mut terminal) = with_socket(case, "tty; read word; echo got $word", |_| {});
    let container = Container::adopt(case, &id);
    let _ = container.start().ok();
    terminal.expect("/dev/pts/0");
    terminal.send("hello\n");
    terminal.expect("got hello");
    container.wait_status("stopped");
}

fn the_terminal_is_the_controlling_one(case: &Case) {
    let (id, mut terminal) = with_socket(case, "trap 'echo interrupted; exit 5' INT; echo up; while :; do sleep 1; done", |_| {});
    let container = Container::adopt(case, &id);
    let _ = container.start().ok();
    terminal.expect("up");
    terminal.send("\u{3}");
    terminal.expect("interrupted");
    container.wait_status("stopped");
}

fn console_size_is_set(case: &Case) {
    let (id, mut terminal) = with_socket(case, "stty size", |spec| {
        spec["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    });
    let container = Container::adopt(case, &id);
    let _ = container.start().ok();
    terminal.expect("33 77");
    container.wait_status("stopped");
}

fn foreground_run_relays_the_terminal(case: &Case) {
    let bundle = case.bundle().script("test -t 0 && test -t 1 && echo is a tty; read word; echo got $word; exit 9");
    let bundle = bundle.set("/process/terminal", json!(true));
    let (mut terminal, slave) = Terminal::open();
    let running = bundle.run_command().arg(&bundle.id).terminal(slave).spawn();
    terminal.expect("is a tty");
    terminal.send("hello\n");
    terminal.expect("got hello");
    let _ = running.wait().exits(9);
}

fn exec_with_a_terminal_over_the_socket(case: &Case) {
    let container = case.bundle().sleeper().start();
    let socket = FdSocket::bind(&case.dir, "exec.sock");
    let file = container.process_file(|process| {
        process["terminal"] = json!(true);
        process["args"] = json!(["/bin/sh", "-c", "tty; read word; echo got $word"]);
    });
    let exec = case.ketch().arg("exec").arg("--process").arg(file).arg("--console-socket").arg(&socket.path);
    let _ = exec.arg("--detach").arg(&container.id).run().ok();
    let mut terminal = socket.terminal();
    terminal.expect("/dev/pts/");
    terminal.send("hello\n");
    terminal.expect("got hello");
}

fn exec_tty_in_the_foreground(case: &Case) {
    let container = case.bundle().sleeper().start();
    let (mut terminal, slave) = Terminal::open();
    let exec = case.ketch().args(["exec", "--tty", &container.id, "/bin/sh", "-c", "tty; exit 4"]).terminal(slave);
    let running = exec.spawn();
    terminal.expect("/dev/pts/");
    let _ = running.wait().exits(4);
}

/// Whatever the program does first: it sees the caller's size, and the caller one carriage return.
fn the_first_line_meets_a_terminal_that_is_set_up(case: &Case) {
    case.needs(case.runtime.kind == Kind::Ketch, "runc sets the terminal up beside the program's start");
    let bundle = case.bundle().script("stty size; echo end").set("/process/terminal", json!(true));
    let container = case.bundle().sleeper().start();
    for turn in 0..20 {
        let id = format!("{}-{turn}", bundle.id);
        let run = bundle.run_command().arg(&id);
        let exec = case.ketch().args(["exec", "--tty", &container.id, "/bin/sh", "-c", "stty size; echo end"]);
        for command in [run, exec] {
            let (mut terminal, slave) = Terminal::open();
            let size = Winsize { ws_row: 31, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&slave, size).expect("set the caller's size");
            let running = command.terminal(slave).spawn();
            assert_eq!(terminal.expect("end\r\n"), "31 91\r\nend\r\n", "turn {turn}");
            let _ = running.wait().exits(0);
        }
    }
}

fn console_device_is_the_terminal(case: &Case) {
    let (id, mut terminal) = with_socket(case, "echo through the console > /dev/console", |_| {});
    let container = Container::adopt(case, &id);
    let _ = container.start().ok();
    terminal.expect("through the console");
    container.wait_status("stopped");
}

fn a_missing_console_socket_is_named(case: &Case) {
    let bundle = case.bundle().set("/process/terminal", json!(true));
    let out = bundle.create_command().args(["--console-socket", "/no/such/socket"]).arg(&bundle.id).run();
    out.refuses(&["/no/such/socket", "no such file"]);
    let out = bundle.create_command().arg(&bundle.id).run();
    out.refuses(&["cannot allocate tty if runc will detach without setting console socket"]);
}
