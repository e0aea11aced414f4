# Test data: one step of lab_copy.rb on two folders of this host.
#
#   ruby copying.rb copy|halt|destroy FOLDER      FOLDER/checkout and FOLDER/lab
#
# Environment: MACHINE=off; BREAK=download; SAVE_MEANWHILE=PATH writes in the machine while
# the files are on their way there; EVIL=1 sends back an archive that wants out.
require "vagrant"
require "pathname"
require_relative "../../vagrant/host/lab_copy"

STEP, FOLDER = ARGV
LabCopy.send(:remove_const, :GUEST)
LabCopy.const_set(:GUEST, "#{FOLDER}/lab")
LabCopy.send(:remove_const, :STAMP)
LabCopy.const_set(:STAMP, "#{FOLDER}/state/stamp")

# The connection: this host's shell instead of ssh, and its /tmp a folder of the test.
class Here
  def here(path)
    path.sub("/tmp/", "#{FOLDER}/tmp-")
  end

  def sudo(script)
    text = script.gsub("/tmp/lab-copy", here("/tmp/lab-copy"))
    output = IO.popen(["sh", "-c", text], &:read)
    raise Vagrant::Errors::VagrantError, "the script failed" unless $?.success?
    yield :stdout, output if block_given?
  end

  def download(from, to)
    raise Vagrant::Errors::VagrantError, "the way is broken" if ENV["BREAK"] == "download"
    FileUtils.cp(here(from), to)
    return unless ENV["EVIL"]
    Dir.chdir(FOLDER) { File.write("evil.txt", "evil") }
    Dir.mkdir("#{FOLDER}/made")
    File.write("#{FOLDER}/made/good.txt", "good")
    system("tar", "-C", "#{FOLDER}/made", "-P", "-czf", to, "../evil.txt", "#{FOLDER}/evil.txt", "good.txt", exception: true)
    File.delete("#{FOLDER}/evil.txt")
  end

  def upload(from, to)
    FileUtils.cp(from, here(to))
    return unless ENV["SAVE_MEANWHILE"]
    sleep 0.05
    File.write("#{FOLDER}/lab/#{ENV["SAVE_MEANWHILE"]}", "saved meanwhile\n")
  end
end

State = Struct.new(:id)
Ui = Class.new { def info(text) = puts(text); alias_method :warn, :info }
Machine = Struct.new(:communicate, :data_dir, :ui, :state)

data = Pathname.new("#{FOLDER}/data")
data.mkpath
state = State.new(ENV["MACHINE"] == "off" ? :shutoff : :running)
machine = Machine.new(Here.new, data, Ui.new, state)
checkout = "#{FOLDER}/checkout"
begin
  STEP == "copy" ? LabCopy.copy(machine, checkout) : LabCopy.bring_back(machine, checkout, leaving: STEP == "destroy")
rescue Vagrant::Errors::VagrantError => e
  abort e.message
end
