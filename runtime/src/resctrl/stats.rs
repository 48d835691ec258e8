//! What a container's resctrl group has and uses: the `intel_rdt` part of `events`, with runc's keys.

use std::os::fd::OwnedFd;
use std::path::Path;

use ketch_sys::cgroupfs;
use serde::Serialize;

use super::{Group, ResctrlError};

/// Everything that resctrl tells of a group; absent is what the machine lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ResctrlStats {
    /// What L3 cache allocation can do here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3CacheInfo>,
    /// The root group's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The group's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What memory bandwidth allocation can do here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemBwInfo>,
    /// The root group's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The group's line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory bandwidth, by monitoring domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<MemoryBandwidth>>,
    /// Cache use, by monitoring domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CacheOccupancy>>,
}

/// `info/L3`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct L3CacheInfo {
    /// The longest mask, in hexadecimal.
    pub cbm_mask: String,
    /// Least number of bits in a mask.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemBwInfo {
    /// Step, in percent.
    pub bandwidth_gran: u64,
    /// Whether the delay is linear.
    pub delay_linear: u64,
    /// Least share, in percent.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Of one domain, in bytes since the group was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryBandwidth {
    /// All memory.
    pub mbm_total_bytes: u64,
    /// The domain's own memory.
    pub mbm_local_bytes: u64,
}

/// Of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheOccupancy {
    /// Bytes of the last-level cache.
    pub llc_occupancy: u64,
}

impl Group {
    /// What the group has and uses.
    ///
    /// # Errors
    /// A file of resctrl can't be read.
    pub fn stats(&self) -> Result<ResctrlStats, ResctrlError> {
        let root = Place { dir: &self.root, path: &self.mountpoint };
        let class = Place { dir: &self.dir, path: &self.path };
        let root_lines = root.lines("schemata")?;
        let mut stats = ResctrlStats { schemata: class.lines("schemata")?, ..ResctrlStats::default() };
        if root.has("info/L3") {
            stats.l3_cache_info = Some(L3CacheInfo {
                cbm_mask: root.text("info/L3/cbm_mask")?,
                min_cbm_bits: root.number("info/L3/min_cbm_bits")?,
                num_closids: root.number("info/L3/num_closids")?,
            });
            stats.l3_cache_schema_root = line_of(&root_lines, "L3");
            stats.l3_cache_schema = line_of(&stats.schemata, "L3");
        }
        if root.has("info/MB") {
            stats.mem_bw_info = Some(MemBwInfo {
                bandwidth_gran: root.number("info/MB/bandwidth_gran")?,
                delay_linear: root.number("info/MB/delay_linear")?,
                min_bandwidth: root.number("info/MB/min_bandwidth")?,
                num_closids: root.number("info/MB/num_closids")?,
            });
            stats.mem_bw_schema_root = line_of(&root_lines, "MB");
            stats.mem_bw_schema = line_of(&stats.schemata, "MB");
        }
        if root.has("info/L3_MON") {
            let features = root.lines("info/L3_MON/mon_features")?;
            // Without a monitoring group these are the numbers of all who share the class, as in runc.
            let watched = match &self.monitor {
                Some((dir, path)) => Place { dir, path },
                None => class,
            };
            watched.add_monitoring(&features, &mut stats)?;
        }
        Ok(stats)
    }
}

/// A directory, with its path for errors.
struct Place<'a> {
    dir: &'a OwnedFd,
    path: &'a Path,
}

impl Place<'_> {
    fn has(&self, name: &str) -> bool {
        cgroupfs::open_sub_dir(self.dir, Path::new(name)).is_ok()
    }

    fn text(&self, file: &str) -> Result<String, ResctrlError> {
        let read = cgroupfs::read_value(self.dir, file);
        let text = read.map_err(|source| ResctrlError::Read { path: self.path.join(file), source })?;
        Ok(text.trim().to_owned())
    }

    fn lines(&self, file: &str) -> Result<Vec<String>, ResctrlError> {
        // resctrl aligns the names of the lines.
        Ok(self.text(file)?.lines().map(|line| line.trim().to_owned()).collect())
    }

    fn number(&self, file: &str) -> Result<u64, ResctrlError> {
        let content = self.text(file)?;
        content.parse().map_err(|_| ResctrlError::NoNumber { path: self.path.join(file), content })
    }

    fn add_monitoring(&self, features: &[String], stats: &mut ResctrlStats) -> Result<(), ResctrlError> {
        let counted = |name: &str| features.iter().any(|feature| feature == name);
        let (total, local) = (counted("mbm_total_bytes"), counted("mbm_local_bytes"));
        let occupancy = counted("llc_occupancy");
        let data = cgroupfs::open_sub_dir(self.dir, Path::new("mon_data"));
        let mut domains = data
            .and_then(cgroupfs::sub_dirs)
            .map_err(|source| ResctrlError::Read { path: self.path.join("mon_data"), source })?;
        domains.sort_unstable();
        let (mut bandwidth, mut cache) = (Vec::new(), Vec::new());
        for domain in domains {
            let number = |file: &str| self.number(&format!("mon_data/{}/{file}", domain.display()));
            let of = |counted, file| if counted { number(file) } else { Ok(0) };
            bandwidth.push(MemoryBandwidth {
                mbm_total_bytes: of(total, "mbm_total_bytes")?,
                mbm_local_bytes: of(local, "mbm_local_bytes")?,
            });
            cache.push(CacheOccupancy { llc_occupancy: of(occupancy, "llc_occupancy")? });
        }
        stats.mbm_stats = (total || local).then_some(bandwidth);
        stats.cmt_stats = occupancy.then_some(cache);
        Ok(())
    }
}

/// The last line of a resource; code and data of a cache have lines of their own.
fn line_of(lines: &[String], resource: &str) -> String {
    let of_it = |line: &&String| line.split(':').next().is_some_and(|name| name.contains(resource));
    lines.iter().rfind(of_it).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::resctrl::ResctrlPlan;
    use crate::resctrl::tests::make_dirs;
    use ketch_sys::path;
    use std::fs;
    use std::path::PathBuf;

    fn folder(files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("ketch-resctrl-stats-{}", std::process::id()));
        for (file, content) in files {
            make_dirs(root.join(file).parent().unwrap());
            fs::write(root.join(file), content).unwrap();
        }
        root
    }

    #[test]
    fn keys_and_order_are_runcs() {
        let root = folder(&[
            ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("gold/schemata", "    MB:0=20;1=70\n    L3:0=f;1=f0\n"),
            ("gold/mon_data/mon_L3_00/llc_occupancy", "1048576\n"),
            ("gold/mon_data/mon_L3_00/mbm_total_bytes", "7\n"),
            ("gold/mon_data/mon_L3_00/mbm_local_bytes", "3\n"),
        ]);
        let rdt = serde_json::from_str(r#"{"closID": "gold"}"#).unwrap();
        let plan = ResctrlPlan::new(&rdt, "web", &root);
        let opened = path::open_host(&root, path::PATH | path::DIRECTORY).unwrap();
        let stats = Group::make_below(opened, &plan).and_then(|group| group.stats());
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            serde_json::to_string(&stats.unwrap()).unwrap(),
            concat!(
                r#"{"l3_cache_info":{"cbm_mask":"fffff","min_cbm_bits":1,"num_closids":16},"#,
                r#""l3_cache_schema_root":"L3:0=fffff;1=fffff","l3_cache_schema":"L3:0=f;1=f0","#,
                r#""mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},"#,
                r#""mem_bw_schema_root":"MB:0=100;1=100","mem_bw_schema":"MB:0=20;1=70","#,
                r#""schemata":["MB:0=20;1=70","L3:0=f;1=f0"],"#,
                r#""mbm_stats":[{"mbm_total_bytes":7,"mbm_local_bytes":3}],"cmt_stats":[{"llc_occupancy":1048576}]}"#
            )
        );
    }
}
