//! Reading `matrix.txt`.

/// One table of the file: callers as columns.
pub struct Table {
    pub callers: Vec<&'static str>,
    pub rows: Vec<Row>,
}

/// A line in a state.
pub struct Row {
    pub line: &'static str,
    pub state: &'static str,
    pub cells: Vec<Cell>,
}

/// What is expected; `None`: there is no such case.
pub type Cell = Option<&'static str>;

impl Table {
    /// The table under the heading `## name`.
    pub fn parse(file: &'static str, name: &str) -> Self {
        let mut lines = file
            .lines()
            .skip_while(|line| line.strip_prefix("## ") != Some(name))
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let head: Vec<&str> = lines.next().expect("a table has a head").split_whitespace().collect();
        assert_eq!(head[..2], ["line", "state"]);
        let callers = head[2..].to_vec();
        let rows: Vec<Row> = lines
            .map(|text| {
                let mut words = text.split_whitespace();
                let (line, state) = (words.next().unwrap(), words.next().unwrap());
                let cells: Vec<Cell> = words.map(|word| (word != "-").then_some(word)).collect();
                assert_eq!(cells.len(), callers.len(), "{line} {state}");
                Row { line, state, cells }
            })
            .collect();
        Self { callers, rows }
    }

    /// The states of a line, in order.
    pub fn states(&self, line: &str) -> Vec<&'static str> {
        self.rows.iter().filter(|row| row.line == line).map(|row| row.state).collect()
    }
}
