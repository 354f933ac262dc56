//! The zygote: maps an image once, then forks a container's first process for each request.

pub fn run() -> Result<(), String> {
    Err("not built yet".into())
}
