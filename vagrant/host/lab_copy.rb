# The project's tree in the machine by copying, both ways, losing nothing.
#
# For where no live folder can be had.  Vagrant's own rsync folder goes one way and deletes;
# this one is a synced folder type of its own, "lab_copy", and the rules are:
#
#   - what was written in the machine comes back to the checkout before the machine is
#     stopped, restarted, provisioned or destroyed, and before anything goes there;
#   - nothing is ever deleted in the checkout; a file that was changed on both sides stays
#     as it is there, and the machine's version is kept in .vagrant/from-machine/;
#   - a machine whose writings have not come back is not destroyed (LAB_DISCARD=1 insists).
#
# `vagrant lab-copy` copies at any time, `vagrant lab-copy --watch` every two seconds.
# Only Vagrant's own connection and Ruby's own tar are used: no rsync, so Windows too.
#
# Read: tar(5) (ustar), find(1) (-cnewer), inode(7) on ctime.
require "fileutils"
require "find"
require "json"
require "rubygems/package"
require "tempfile"
require "vagrant"
require "zlib"

module LabCopy
  GUEST = "/lab"
  STAMP = "/var/lib/labkit/lab-copy.stamp" # what is newer has not come back yet
  # Made on each side for itself.
  OWN = %w[.git .vagrant .venv .mypy_cache .pytest_cache .ruff_cache .ipynb_checkpoints __pycache__ build]

  module_function

  # Paths below `root` with size and mtime [bytes, s]: what tells a changed file.
  def files(root)
    found = {}
    Find.find(root) do |path|
      Find.prune if path != root && OWN.include?(File.basename(path))
      stat = File.lstat(path)
      found[path[(root.length + 1)..]] = [stat.size, stat.mtime.to_f] if stat.file? || stat.symlink?
    end
    found
  end

  def memory(machine)
    machine.data_dir.join("lab-copy.json")
  end

  # What was last sent; `open` while the machine may hold writings that have not come back.
  def remember(machine, sent, open:)
    memory(machine).write(JSON.dump("sent" => sent, "open" => open))
  end

  def recall(machine)
    memory(machine).file? ? JSON.parse(memory(machine).read) : { "sent" => {}, "open" => false }
  end

  # Machine to checkout.  Returns the paths changed on both sides.
  def fetch(machine, root)
    sent = recall(machine)["sent"]
    both = []
    changed_in(machine) do |path, mode, mtime, content|
      here = File.join(root, path)
      next if File.file?(here) && File.binread(here) == content
      stat = File.exist?(here) ? File.lstat(here) : nil
      if stat && sent[path] != [stat.size, stat.mtime.to_f]
        both << path
        here = File.join(root, ".vagrant", "from-machine", Time.now.strftime("%Y-%m-%d-%H%M%S"), path)
        machine.ui.warn("#{path} was changed here and in the machine: the machine's is in #{here}")
      else
        machine.ui.info("from the machine: #{path}")
      end
      FileUtils.mkdir_p(File.dirname(here))
      # Written beside and moved into place: an interrupted copy leaves the old file whole.
      File.binwrite("#{here}.lab-copy", content)
      File.chmod(mode & 0o777, "#{here}.lab-copy")
      File.utime(mtime, mtime, "#{here}.lab-copy")
      File.rename("#{here}.lab-copy", here)
      next if both.include?(path)
      stat = File.lstat(here)
      sent[path] = [stat.size, stat.mtime.to_f]
    end
    remember(machine, sent, open: true)
    both
  end

  # Yields path, mode, mtime, content of every file written in the machine since the stamp.
  # ctime and not mtime: unpacking and copying set mtimes of long ago.
  def changed_in(machine)
    skipped = OWN.map { |name| "-name #{name}" }.join(" -o ")
    remote = "/tmp/lab-copy-back.tar.gz"
    # The next stamp is taken before the list, so that a later write counts next time; the
    # pause is longer than the clock tick that ctimes are rounded to.
    machine.communicate.sudo(<<~SH)
      set -e
      mkdir -p #{GUEST} #{File.dirname(STAMP)}
      test -e #{STAMP} || touch #{STAMP}
      touch #{STAMP}.next
      sleep 0.02
      cd #{GUEST}
      find . \\( #{skipped} \\) -prune -o -type f -cnewer #{STAMP} -print0 |
        tar --format=ustar --ignore-failed-read --null -T - -czf #{remote}
      chmod 644 #{remote}
    SH
    Tempfile.create("lab-copy") do |local|
      local.close
      machine.communicate.download(remote, local.path)
      Zlib::GzipReader.open(local.path) do |plain|
        Gem::Package::TarReader.new(plain).each do |entry|
          path = entry.full_name.delete_prefix("./")
          # The machine is the fence: nothing that it sends is written outside the checkout.
          next if !entry.file? || path.start_with?("/") || path.split("/").include?("..")
          yield path, entry.header.mode, entry.header.mtime, entry.read || ""
        end
      end
    end
    # Only now: had the way back broken, the same files would be listed again.
    machine.communicate.sudo("mv #{STAMP}.next #{STAMP}; rm -f #{remote}")
  end

  # Checkout to machine: what differs from the last sending, and what is gone.
  def send_to(machine, root, both)
    sent = recall(machine)["sent"]
    now = files(root)
    changed = now.reject { |path, known| sent[path] == known && !both.include?(path) }.keys
    gone = sent.keys - now.keys
    remote = "/tmp/lab-copy"
    Tempfile.create("lab-copy") do |local|
      local.binmode
      changed.each { |path| append(local, root, path) }
      local.write("\0" * 1024)
      local.close
      machine.communicate.upload(local.path, "#{remote}.tar")
    end
    Tempfile.create("lab-copy") do |local|
      local.binmode
      local.write(gone.map { |path| "#{path}\0" }.join)
      local.close
      machine.communicate.upload(local.path, "#{remote}.gone")
    end
    # What a learner saves between the two directions is left alone.  The new stamp must lie
    # after what is unpacked here, which is no writing of theirs; theirs is made newer again.
    written = +""
    machine.communicate.sudo(<<~SH) { |kind, text| written << text if kind == :stdout }
      set -e
      export LC_ALL=C
      cd #{GUEST}
      xargs -0 -r rm -f -- < #{remote}.gone
      find . -type f -cnewer #{STAMP} -printf '%P\\n' | sort | tee #{remote}.written
      tar --no-same-owner --no-wildcards --anchored -X #{remote}.written -xf #{remote}.tar
      tar -tf #{remote}.tar | sort > #{remote}.sent
      find . -type f -cnewer #{STAMP} -printf '%P\\n' | sort | comm -23 - #{remote}.sent >> #{remote}.written
      touch #{STAMP}
      sleep 0.02
      while IFS= read -r path; do chmod u+r -- "$path"; done < #{remote}.written
      rm -f #{remote}.tar #{remote}.gone #{remote}.sent #{remote}.written
    SH
    machine.ui.info("to the machine: #{changed.length} files") unless changed.empty?
    written.lines(chomp: true).each { |path| now[path] = sent[path] }
    remember(machine, now.compact, open: true)
  end

  # Gem::Package::TarWriter cannot set mtimes, so the headers are made here.
  def append(tar, root, path)
    stat = File.lstat(File.join(root, path))
    name, prefix = path, ""
    if path.bytesize > 100
      cut = path.index("/", path.length - 100) or raise Vagrant::Errors::VagrantError, "too long a name: #{path}"
      prefix, name = path[0...cut], path[(cut + 1)..]
    end
    fields = { name: name, prefix: prefix, mode: stat.mode & 0o777, mtime: stat.mtime.to_i, size: 0, typeflag: "2" }
    if stat.symlink?
      tar.write(Gem::Package::TarHeader.new(**fields, linkname: File.readlink(File.join(root, path))))
      return
    end
    content = File.binread(File.join(root, path))
    tar.write(Gem::Package::TarHeader.new(**fields, size: content.bytesize, typeflag: "0"))
    tar.write(content, "\0" * (-content.bytesize % 512))
  end

  # Both ways.
  def copy(machine, root)
    send_to(machine, root, fetch(machine, root))
  end

  # Before the machine stops or goes: everything back, or an error that says what to do.
  def bring_back(machine, root, leaving:)
    if machine.state.id == :running
      fetch(machine, root)
      remember(machine, recall(machine)["sent"], open: false)
    elsif leaving && recall(machine)["open"] && !ENV["LAB_DISCARD"]
      raise NotBack
    end
  rescue Vagrant::Errors::VagrantError => e
    raise if e.is_a?(NotBack) || !ENV["LAB_DISCARD"]
    machine.ui.warn("not copied back, as LAB_DISCARD asks: #{e.message}")
  end

  # The checkout, if this machine's /lab is shared by copying, else nil.
  def root(machine)
    _, folder = machine.config.vm.synced_folders.find { |_, f| f[:type].to_s == "lab_copy" && !f[:disabled] }
    folder && File.expand_path(folder[:hostpath], machine.env.root_path)
  end

  def triggers(config)
    { halt: false, suspend: false, reload: false, destroy: true }.each do |command, leaving|
      config.trigger.before command do |t|
        t.ruby do |_env, machine|
          where = root(machine)
          bring_back(machine, where, leaving: leaving) if where && machine.id
        end
      end
    end
    config.trigger.before :provision do |t|
      t.ruby { |_env, machine| copy(machine, root(machine)) if root(machine) && machine.state.id == :running }
    end
  end

  class NotBack < Vagrant::Errors::VagrantError
    def error_message
      "The machine is not running, and what was written in it since it was last copied has not\n" \
        "come back to the checkout. `vagrant up` brings it back; LAB_DISCARD=1 goes without it."
    end
  end

  class Folder < Vagrant.plugin("2", :synced_folder)
    def usable?(_machine, _raise_error = false)
      true
    end

    def enable(machine, folders, _opts)
      folders.each_value { |folder| LabCopy.copy(machine, folder[:hostpath]) }
    end
  end

  class Command < Vagrant.plugin("2", :command)
    def self.synopsis
      "copies the lab's tree to the machine and back (where it is not live)"
    end

    def execute
      with_target_vms(@argv - ["--watch"], single_target: true) do |machine|
        where = LabCopy.root(machine)
        next machine.ui.info("/lab is live: there is nothing to copy") unless where
        loop do
          LabCopy.copy(machine, where)
          break unless @argv.include?("--watch")
          sleep 2
        end
      end
      0
    end
  end

  class Plugin < Vagrant.plugin("2")
    name "the lab's tree by copying"
    synced_folder("lab_copy", 1) { Folder }
    command("lab-copy") { Command }
  end
end
